"""What a node does to the outputs of a model that ends with it: the words in which dialects say so."""

from typing import Literal

HeadRole = Literal[
    "", "detections", "selection", "centered-selection", "largest", "likelihood", "move", "pick"
]
"""* detections: its outputs are boxes, classes, scores and their count
* selection: suppression among the boxes of input 0 and the scores of input 1; output 0 is [n, 3] of image, class, box
* centered-selection: the same, with boxes as centre and size
* largest: the place of the largest element along an axis
* likelihood: numbers between 0 and 1, each for itself
* move: the elements of input 0 in another shape or type
* pick: some of the elements of input 0
"""
