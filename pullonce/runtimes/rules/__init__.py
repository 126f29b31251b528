"""What `pullonce gateway doctor` looks for: rules over the files of a runtime and the facts of the machine."""
