"""Agreement: how well the outputs of a lossy split agree with those of the whole model, measured without labels.

A model's outputs are grouped into heads (`recognise`), and every head is read in one way: the place of the largest
element (`top1`), the overlap of label maps (`iou`), the detections that two runs share (`f1`), or a function of the
user (`measures`). The worst head that the boundary reaches (`reach`) is the agreement.
"""
