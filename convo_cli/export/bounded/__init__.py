"""Process with limits, in which an export is opened by the program that it is for."""
