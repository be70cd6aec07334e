"""Generated scenes, still and moving, of shapes and people: queries about them, training and evaluation on them."""
