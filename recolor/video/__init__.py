"""Colours films. May import inference, models, images and core. PyAV and OpenCV come with the extra `video`."""
