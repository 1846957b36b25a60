RULES = ["Know who writes before you change anything.", "One tool at a time."]
