from sftkey.util.extras import needs

needs("matplotlib", "report")
