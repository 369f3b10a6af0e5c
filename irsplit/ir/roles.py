"""What a node at the end of a model does to the outputs, in words that dialects share."""

from typing import Literal

HeadRole = Literal[
    "", "detections", "selection", "centered-selection", "largest", "likelihood", "move", "pick"
]
"""The role of a node at a model's output; empty for any other node.

* detections: its outputs are boxes, classes, scores and their count.
* selection: it suppresses overlaps among the boxes of input 0 by the scores of input 1; output 0
  is [n, 3]: image, class, box.
* centered-selection: the same, with boxes given as centre and size.
* largest: the place of the largest element along an axis.
* likelihood: numbers between 0 and 1, independent of each other.
* move: the elements of input 0 in another shape or type.
* pick: some of the elements of input 0.
"""
