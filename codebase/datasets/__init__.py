"""Where the images come from: files that are found, downloaded and checked, or drawn."""
