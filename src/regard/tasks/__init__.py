"""What a model can be asked to do, one task a file: its data, its training objective, its measure and its verb."""
