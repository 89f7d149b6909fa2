"""The sources of images: files that are found, downloaded and checked, or synthetic digits."""
