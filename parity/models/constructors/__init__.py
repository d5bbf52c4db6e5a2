"""What a constructor's arguments mean, and giving it the reference's configuration.

Read `words`, `signatures`, `unpacking`, `holders`, `slots`, `options`, `classes`, `quantities`, `defaults`,
`probing`, `searching`, `constants`, and `binding`, which asks the others.
"""
