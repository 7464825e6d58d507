"""What a terminal shows of a training while it lasts.

Events and records go into a `watching.RunWatch`, which makes a `view.View` of them; `drawing` makes
lines of that, and `display.LiveDisplay` keeps them at the foot of the terminal, below the log.
"""
