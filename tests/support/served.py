"""The image that the Label Studio of the tests has."""

import cv2

from support.exports import picture

STREET = cv2.GaussianBlur(picture(48, 64, seed=3), (0, 0), 3)
PICTURE = cv2.imencode(".png", STREET[..., ::-1])[1].tobytes()
