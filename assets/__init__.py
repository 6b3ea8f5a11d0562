"""What is made: one package per stage, each with its Dagster assets and its plain modules."""
