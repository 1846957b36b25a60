RULES = ["Never promise a seat that is not free."]
