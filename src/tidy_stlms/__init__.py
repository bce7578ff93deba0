"""Tidy STLMs: train super tiny language models, inject facts, measure recall.

The folders beside this file are links to the top-level folders of the project. They are installed inside this
package, so that `eval` and `scripts` do not collide with a user's own. `modeling_stlm` is its own package.
There is no `tidy_stlms.modeling_stlm`, since its classes would then exist twice.
"""
