"""Measure, without labels, how well a lossy split agrees with the whole model.

The outputs of a model are grouped into heads (`recognise`). Each head is read in one way: by the
place of the largest element (`top1`), the overlap of label maps (`iou`), the detections that two
runs share (`f1`), or a function of the user (`measures`). The agreement of the model is that of the
worst head that the boundary can reach (`reach`).
"""
