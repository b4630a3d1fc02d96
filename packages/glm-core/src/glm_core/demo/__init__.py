"""``glm demo``: scenes that do something real, and one page that shows what they did.

``scenes.py`` says what a scene is and finds those of every installed package; ``page.py`` makes
the page; ``curve.py`` draws a line chart; ``*_scenes.py`` are glm_core's own.
"""
