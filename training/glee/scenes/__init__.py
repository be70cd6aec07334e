"""Generated scenes, still and moving, of shapes and people: what is asked about them, training and evaluation on them."""
