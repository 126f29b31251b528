"""What every worker does alike: take orders, carry them out, say how it gets on."""
