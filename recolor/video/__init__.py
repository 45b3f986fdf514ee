"""Colours films. May import inference, images and core. PyAV and OpenCV come with the extra `video`."""
