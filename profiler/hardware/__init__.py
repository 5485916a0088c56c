"""GPUs by name: what a simulated run needs to know of the card it is simulated on."""
