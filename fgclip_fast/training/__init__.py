"""What the training loop is made of; the loop itself is ``fgclip_fast/train.py``."""
