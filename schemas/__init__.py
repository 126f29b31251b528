"""The published language of pullonce: events, orders, the OCI documents they speak of, and their subjects."""
