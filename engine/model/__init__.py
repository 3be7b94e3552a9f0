"""The model: loading it, finding and answering its dropout calls, and running T passes."""
