"""Measure how well the outputs of a lossy split agree with those of the whole model, without labels.

The outputs of a model are grouped into heads (`recognise`). Each head is read in one way: by the
place of the largest element (`top1`), the overlap of label maps (`iou`), the detections that two
runs share (`f1`), or a function of the user (`measures`). The agreement of the model is that of the
worst head that the boundary can reach (`reach`).
"""
