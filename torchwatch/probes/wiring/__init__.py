"""What was seen of the silent mistakes: the model, its optimizer and its modes.

Looked at on sampled steps. The map is written when it differs from the one written before, and holds until
the next one. Lists hold the first 64 indices of the latest layout; a key without anything to say is left out.

* ``training``: the model's own ``training`` flag in the last pass that was trained on;
* ``eval_layers``: layers with dropout, or with running statistics of a norm, that were in evaluation mode in
  a pass that was trained on;
* ``small_batch_norms`` and ``small_batch_values``: batch norms in training mode that saw fewer than 4 values
  per channel in such a pass, and how many;
* ``evaluation_dropout``: whether dropout was active in a pass without autograd since the record before was
  closed (an evaluation after a step belongs to that step); left out where no such pass was seen (the model
  is looked at on sampled steps, with the sentinel on, and once after each loop over ``watch.batches``) or
  the model has no dropout;
* ``no_gradient`` and ``no_gradient_since``: trainable parameters without a gradient at the optimizer step,
  and the sampled step since which this has been so;
* ``zero_gradient`` and ``zero_gradient_since``: trainable parameters whose gradient was exactly 0;
* ``unchanged`` and ``unchanged_since``: trainable parameters of which no element has changed in steps that
  had a gradient for them (not one that is mere rounding noise, as of a bias before a batch norm), as far as
  they were read in full: small ones always, large ones on thorough steps;
* ``frozen_changed``: parameters with ``requires_grad=False`` that changed inside the optimizer's step;
* ``more``: for each list that was cut, how many indices were left out.

Parameters in no optimizer are in the layout, and whether gradients were zeroed is ``stale_gradients``.
"""

from torchwatch.probes.wiring.probe import WiringProbe

__all__ = ["WiringProbe"]
