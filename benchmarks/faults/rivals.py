"""."""
RULES = {}
def spoken(tap):
    return {}
