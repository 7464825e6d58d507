"""A run as a document: one HTML file that needs nothing else, for the screen and for A4 paper.

`facts` reads all that it says from the store, and computes nothing of its own; the rest is pure. In
markup, a figure is a ``<data>`` element whose ``value`` is the exact number under the name (and in the
unit) of the exports, ``data-figure``; its text is what a person reads.
"""
