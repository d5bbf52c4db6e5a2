"""The catalogue: every nameable way in which a Vision Transformer can differ from torchvision's, an entry each.

There is a module for each place of the model, which yields the entries there; `catalogue` is their sum, and `absences`
has those for tensors without a counterpart. An entry wraps operations of `bent_vit`: its functions are called with the
operation as it was, and with the operation's arguments. Shape letters as there.
"""
