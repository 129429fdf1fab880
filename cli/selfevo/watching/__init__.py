"""`selfevo watch` in a terminal: the whole run on one screen, and keys to suspend, resume and approve it.

scene.py picture.py blocks.py   what is seen -> lines; pure
trail.py left.py sparkline.py   log -> reports, curves and words; how long is left; a curve in a line; pure
command.py session.py           options; the screen, and what is printed after it
screen.py keys.py               the loop, the terminal
local.py cluster.py questions.py   where it all comes from
"""
