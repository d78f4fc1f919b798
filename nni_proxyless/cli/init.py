"""stub"""


def add_command(command):
    pass
