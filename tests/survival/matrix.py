"""The survival matrix: what a training may be and do, and the tests that show torchwatch living through it.

A row maps a claim to the tests that hold it: ``file::function``, with ``[…]`` where only some of a test's
parameters are meant. :mod:`tests.survival.test_matrix` checks that every one of them exists and that no test
of this folder is missing here.
"""

from __future__ import annotations

BITWISE = "tests/test_bitwise.py::test_training_is_the_same_when_watched"
STEPS = "tests/test_steps_found.py::test_every_loop_of_the_zoo_has_its_steps"
SHAPE = "tests/test_steps_found.py::test_the_steps_of_a_loop"
LEFT = "tests/test_nothing_left.py::test_nothing_stays"
SURVIVAL = "tests/survival"

Rows = dict[str, tuple[str, ...]]


def zoo(*cases: str) -> tuple[str, ...]:
    """A training of the zoo: bitwise the same when watched, and as many steps in the file as it took."""
    return tuple(
        node for case in cases for node in (f"{BITWISE}[{case}-everything]", f"{STEPS}[{case}]")
    )  # fmt: skip


def shapes(*names: str) -> tuple[str, ...]:
    """Loops that only count their steps."""
    return tuple(f"{SHAPE}[{name}]" for name in names)


def own(file: str, *tests: str) -> tuple[str, ...]:
    """Tests of this folder."""
    return tuple(f"{SURVIVAL}/test_{file}.py::test_{test}" for test in tests)


DESIGN: Rows = {
    "no full backward hook": (
        "tests/test_bitwise.py::test_full_backward_hooks_are_what_the_watcher_must_not_use",
        *own("private_names", "no_hook_that_changes_training_is_used"),
    ),
    "nothing is stored on the model: save, pickle, deepcopy, state_dict": (
        "tests/test_nothing_left.py::test_what_is_saved_while_watched_is_the_same",
        "tests/test_nothing_left.py::test_a_copy_is_not_watched",
        "tests/test_hostile_host.py::test_outputs_and_losses_can_be_pickled",
        *zoo("state-dict-hooks"),
    ),
    "script, trace, export and the encoder's fast path are the host's own": (
        "tests/test_instruments.py::test_what_the_host_captures_is_its_own_model",
        "tests/test_hostile_host.py::test_the_fast_path_of_the_encoder_stays_fast",
        *zoo("transformer-encoder-fast-path"),
        *own("compile", "exported_and_run_while_watched"),
    ),
    "the host's profiler stays whole": (
        "tests/test_instruments.py::test_a_profile_of_the_host_is_complete",
        "tests/probes/test_profiler.py::test_the_hosts_profiler_is_never_disturbed",
        *own("host_instruments", "a_profile_of_the_host_is_complete_while_we_profile_too"),
    ),
    "norms of sharded gradients without a collective": own(
        "ranks", "training_is_the_same_and_no_collective_is_issued", "what_a_rank_holds_is_in_its_own_file"
    ),
}

LOOPS: Rows = {
    "GAN with two optimizers": (
        *zoo("gan-with-two-optimizers"),
        "tests/test_steps_found.py::test_a_generator_and_a_critic_watched_apart",
        "tests/probes/test_wiring.py::test_a_gan_is_not_stale",
    ),
    "n_critic": zoo("gan-with-three-critic-steps"),
    "accumulation": (
        *zoo("accumulation"),
        "tests/test_steps_found.py::test_accumulated_losses_are_averaged",
        "tests/probes/test_loss.py::test_accumulation_averages",
    ),
    "optimizer in backward": zoo("optimizer-in-backward"),
    "several optimizers, overlapping and in turns": (
        *zoo("optimizers-in-sequence"),
        *shapes(
            "two_optimizers_on_all_weights",
            "overlapping_optimizers",
            "alternating_optimizers",
            "one_optimizer_only_at_times",
            "critic_trained_alone_first",
            "optimizer_replaced",
        ),
    ),
    "closures, LBFGS": (
        *zoo("lbfgs-with-closure", "closure-with-sgd"),
        "tests/test_steps_found.py::test_the_update_is_that_of_the_whole_step[closure]",
    ),
    "every class of torch.optim": zoo(
        "optimizer-adadelta",
        "optimizer-adafactor",
        "optimizer-adagrad",
        "optimizer-adam",
        "optimizer-adamax",
        "optimizer-adamw",
        "optimizer-asgd",
        "optimizer-nadam",
        "optimizer-radam",
        "optimizer-rmsprop",
        "optimizer-rprop",
        "optimizer-sgd",
        "optimizer-sparseadam",
        "optimizer-muon",
        "lbfgs-with-closure",
    ),
    "fused and foreach": zoo(
        "fused-adam",
        "fused-adamw",
        "fused-adagrad",
        "fused-sgd",
        "foreach-adam",
        "foreach-sgd",
        "foreach-rmsprop",
        "foreach-adadelta",
    ),
    "wrapped optimizers": zoo(
        "wrapper-lookahead",
        "wrapper-with-two-inner-steps",
        "wrapper-delegating",
        "wrapper-subclass",
        "wrapper-sharpness-aware",
    ),
    "no optimizer": (
        *zoo("manual-descent", "functional-model"),
        "tests/test_steps_found.py::test_a_loop_without_an_optimizer_is_told_once_to_call_step",
        "tests/test_watcher.py::test_manual_updates_need_watch_step",
    ),
    "torch.func: functional calls, per-sample gradients, meta learning": zoo(
        "functional-model", "per-sample-gradients", "meta-learning"
    ),
    "clipping, seen before and after": (
        *zoo("clip-grad-norm", "clip-grad-norm-max", "clip-grad-value"),
        "tests/probes/test_clipping.py::test_norm_before_and_after",
        "tests/probes/test_clipping.py::test_the_function_is_put_back_after_the_last_observer",
        "tests/probes/test_clipping.py::test_without_the_private_function_recording_goes_on",
        "tests/test_hostile_host.py::test_a_patch_of_the_host_on_top_of_ours_stays",
    ),
    "a foreign optimizer, another model's optimizer": (
        "tests/test_steps_found.py::test_a_foreign_optimizer_that_steps_our_weights_is_said",
        *shapes(
            "optimizer_of_another_model",
            "another_model_stepped_in_backward",
            "distillation_of_another_model",
        ),
        "tests/attachment/test_company.py::test_the_critic_of_a_watched_generator_is_in_the_layout",
    ),
    "frozen, thawed and replaced parts": (
        *zoo("frozen-front", "thawing-in-mid-training", "new-head-in-mid-training"),
        "tests/attachment/test_attachment.py::test_a_layer_added_in_mid_run_gets_a_new_layout",
        "tests/attachment/test_attachment.py::test_parameters_replaced_in_mid_run_make_their_optimizer_foreign",
        *own("modules", "parameters_that_take_the_places_of_dead_ones"),
    ),
    "steps are counted as the loop counts them": (
        STEPS,
        SHAPE,
        "tests/test_steps_found.py::test_the_loss_of_each_step_is_the_one_logged_in_it",
    ),
    "the loss, logged or found": (
        "tests/probes/test_loss.py::test_each_value_belongs_to_its_step",
        "tests/probes/test_loss.py::test_the_loss_in_a_models_output",
        "tests/probes/test_loss.py::test_a_validation_loss_module_is_not_the_loss",
        *zoo("loss-inside-the-model", "loss-module-outside"),
    ),
}

PRECISION: Rows = {
    "GradScaler with plain, foreach and fused optimizers": (
        *own("amp", "a_scaled_loop", "a_scaled_and_clipped_loop"),
        *zoo("grad-scaler", "grad-scaler-with-clipping"),
        "tests/test_steps_found.py::test_a_step_that_the_scaler_skips_is_told_apart",
    ),
    "a scaler over accumulation and two optimizers": own(
        "amp", "accumulation_with_two_optimizers_and_one_scaler"
    ),
    "autocast in bfloat16, its weight cache": (
        *own("amp", "autocast_in_bfloat16"),
        *zoo("bf16-autocast"),
    ),
    "half and double precision weights": zoo("half-precision-weights", "double-precision"),
}

COMPILE: Rows = {
    "compiled before attaching, whole graph or not": own("compile", "compiled_before_attaching"),
    "compiled after attaching, whole graph or not": own("compile", "compiled_after_attaching"),
    "in parts, the loss alone, the optimizer's step": own(
        "compile",
        "a_part_of_the_model_is_compiled",
        "a_compiled_loss_and_a_model_that_is_not",
        "a_compiled_optimizer_step",
    ),
    "the coverage says what is not visible": (
        *own("compile", "compiled_before_attaching", "compiled_after_attaching"),
        "tests/attachment/test_attachment.py::test_a_compilation_in_mid_run_is_in_the_coverage",
        "tests/attachment/test_attachment.py::test_a_compiled_model_keeps_everything_but_activations",
        "tests/test_instruments.py::test_a_compiled_model_is_trained_the_same_and_the_file_says_what_is_missing",
    ),
}

PASSES: Rows = {
    "both kinds of checkpointing": (
        *own("passes", "a_pass_counts_once_and_only_if_it_is_trained_on"),
        *zoo("checkpoint-reentrant", "checkpoint-without-reentrance"),
        "tests/probes/test_activations.py::test_checkpointed_passes_count_once",
    ),
    "no_grad, inference_mode, eval, rollouts, discarded losses": (
        *own("passes", "a_pass_counts_once_and_only_if_it_is_trained_on"),
        "tests/probes/test_activations.py::test_evaluation_rollouts_and_discarded_losses_do_not_count",
        *zoo("evaluation-between-steps", "reinforcement", "discarded-losses-and-caught-errors"),
    ),
    "fine-tuning in eval, retain_graph, gradient penalty, autograd.grad": (
        *own("passes", "a_pass_counts_once_and_only_if_it_is_trained_on"),
        *zoo(
            "fine-tuning-in-eval",
            "retain-graph",
            "gradient-penalty",
            "hessian-vector-product",
            "several-backward-passes",
            "anomaly-mode",
        ),
    ),
    "outputs without a gradient path": (
        "tests/probes/test_activations.py::test_a_frozen_front_counts_with_the_pass_it_feeds",
    ),
    "sampled steps only, the others pay nothing per module": (
        "tests/attachment/test_attachment.py::test_unsampled_steps_pay_nothing_per_module_once_the_loss_is_logged",
        "tests/attachment/test_attachment.py::test_the_forward_hook_leaves_no_entry_in_any_table",
        *own("modules", "twelve_thousand_modules"),
    ),
}

MODULES: Rows = {
    "LoRA": own("hosts", "lora"),
    "scripted and traced": own(
        "modules", "scripted_modules_are_trained_the_same", "scripted_layers_are_said_to_be_unseen"
    ),
    "parametrised and pruned": (
        *own(
            "modules",
            "parametrised_modules_are_trained_the_same",
            "parametrised_and_unparametrised_in_mid_run",
        ),
        *zoo("weight-norm-and-spectral-norm"),
    ),
    "lazy": (
        *own("modules", "lazy_modules_are_named_once_they_have_a_shape"),
        *zoo("lazy-modules"),
        "tests/test_patient.py::test_lazy_parameters_have_no_shape_yet",
    ),
    "meta": (
        "tests/test_hostile_host.py::test_a_model_on_the_meta_device",
        *own("modules", "a_model_that_gets_its_memory_while_it_is_watched"),
    ),
    "FakeTensor": ("tests/test_hostile_host.py::test_fake_tensors",),
    "twelve thousand modules": own("modules", "twelve_thousand_modules"),
    "reused modules, tied weights": (
        *zoo("shared-modules", "tied-weights", "siamese", "lstm-cell"),
        "tests/test_patient.py::test_changes_of_the_model_are_found",
    ),
    "deep copies and averages": (
        *own("modules", "an_average_and_a_teacher_are_not_counted"),
        *zoo("average-by-deepcopy", "stochastic-weight-averaging"),
        "tests/test_nothing_left.py::test_a_copy_is_not_watched",
    ),
    "attention, fused and with weights": (
        *own("host_instruments", "attention_is_observed_without_a_changed_bit"),
        "tests/probes/test_attention.py::test_training_is_bitwise_the_same",
        *zoo("attention-with-weights", "attention-fused"),
    ),
    "modules that compare, print or evaluate to nonsense": (
        "tests/test_hostile_host.py::test_awkward_modules_and_outputs",
    ),
}

VALUES: Rows = {
    "int, bool, quantized, nested, sparse, meta, empty, complex outputs": (
        *own("values", "outputs_of_every_kind"),
        "tests/probes/test_activations.py::test_odd_outputs_are_left_alone",
        "tests/probes/test_gradients.py::test_readable_refuses_what_has_no_values",
    ),
    "generators are never iterated": (
        *own("values", "outputs_of_every_kind"),
        *zoo("tuple-and-generator-outputs"),
    ),
    "routers whose experts get nothing": (
        *own("values", "experts_that_get_nothing"),
        *zoo("mixture-of-experts"),
    ),
    "half-precision norms that would overflow": own(
        "values",
        "half_gradients_whose_squares_overflow",
        "large_values_do_not_overflow_in_the_statistics",
    ),
    "one element, one sample, no element": own(
        "values", "outputs_of_every_kind", "empty_scalar_and_integer_parameters"
    ),
    "sparse and complex gradients": (
        "tests/probes/test_gradients.py::test_sparse_and_complex_gradients",
        *zoo("sparse-embedding", "complex-parameters"),
    ),
    "a module that returns its own parameter": (
        *own("values", "outputs_of_every_kind"),
        *zoo("module-returning-its-parameter"),
    ),
    "outputs changed in place": zoo("outputs-changed-in-place", "inplace-relu"),
    "dictionaries, dataclasses, packed sequences": zoo("dict-output", "dataclass-output", "packed-sequence"),
}

RANKS: Rows = {
    "DDP, watched on one rank and on both": own(
        "ranks",
        "training_is_the_same_and_no_collective_is_issued",
        "each_watched_rank_writes_its_own_file",
    ),
    "FSDP2, whole and in part, before and after entering": own(
        "ranks",
        "training_is_the_same_and_no_collective_is_issued",
        "each_watched_rank_writes_its_own_file",
        "what_a_rank_holds_is_in_its_own_file",
    ),
    "gradients as they are after reduction": own("ranks", "the_files_join"),
    "no collective is ever issued": (
        *own("ranks", "training_is_the_same_and_no_collective_is_issued"),
        "tests/probes/test_clipping.py::test_a_norm_that_is_spread_over_ranks_is_left_alone_and_said",
    ),
    "the files of the ranks join": (
        *own("ranks", "the_files_join", "a_rank_that_is_watched_alone_says_what_it_has"),
        "tests/run/test_joined.py::test_norms_of_shards_are_joined_by_their_squares",
        "tests/run/test_joined.py::test_ranks_of_different_length_are_joined_as_far_as_they_go",
        "tests/run/test_files.py::test_ranks_without_a_file_are_said",
        "tests/commands/test_diagnose.py::test_one_rank_is_judged_and_the_others_are_counted",
    ),
    "rank and world, with a launcher and without": (
        *own("ranks", "ranks_under_a_launcher", "each_watched_rank_writes_its_own_file"),
        "tests/test_header.py::test_rank_and_world_as_a_launcher_says_them",
        "tests/test_header.py::test_rank_and_world_as_torch_knows_them",
    ),
    "shards are in the coverage": (
        "tests/attachment/test_attachment.py::test_sharded_parameters_are_in_the_coverage",
        *own("ranks", "a_rank_that_is_watched_alone_says_what_it_has"),
    ),
}

PROCESS: Rows = {
    "forked loader workers are silent": (
        "tests/test_other_threads.py::test_forked_loader_workers_are_silent",
        "tests/test_other_threads.py::test_a_forked_child_that_leaves_the_block_writes_nothing",
        "tests/runfile/test_writer.py::test_a_forked_child_writes_nothing_and_keeps_no_lock",
    ),
    "threads: ours is trained in one, others train in theirs": (
        *shapes("another_model_in_another_thread", "step_in_a_helper_thread"),
        "tests/test_other_threads.py::test_everything_in_a_thread_of_its_own",
        "tests/test_other_threads.py::test_our_gradients_are_only_read_in_the_thread_that_trains",
        "tests/test_other_threads.py::test_leaving_while_another_thread_is_inside_its_optimizer_step",
    ),
    "random generators are not touched": (
        BITWISE,
        "tests/test_other_threads.py::test_the_first_watcher_of_a_process_draws_nothing_from_the_generators",
        "tests/test_other_threads.py::test_importing_the_watcher_draws_nothing_from_the_generators",
    ),
}

HOSTS: Rows = {
    "Accelerate": own("hosts", "accelerate"),
    "Lightning: automatic, manual, accumulation, clipping, bf16, profilers": own("hosts", "lightning"),
    "Trainer of transformers": own("hosts", "the_trainer_of_transformers"),
    "architectures of transformers and timm": (
        "tests/test_architectures.py::test_an_architecture_trains_the_same_when_watched",
    ),
    "transformers and timm without torchvision": (
        "tests/test_architectures.py::test_the_stand_in_says_what_it_is",
        "tests/test_architectures.py::test_no_stand_in_is_left_behind",
    ),
}

INSTRUMENTS: Rows = {
    "FLOP counter and dispatch mode of the host": (
        "tests/test_instruments.py::test_what_the_host_counts_is_its_own",
        *own("host_instruments", "what_the_host_counts_from_the_first_step_on"),
        "tests/probes/test_flops.py::test_the_hosts_own_counter_is_left_alone",
    ),
    "profiler of the host, and windows of our own": own(
        "host_instruments",
        "a_profile_of_the_host_is_complete_while_we_profile_too",
        "windows_of_our_own_change_nothing",
    ),
    "settings of the host": (
        "tests/test_instruments.py::test_what_is_measured_does_not_depend_on_the_hosts_settings",
    ),
    "tensor subclasses": ("tests/test_instruments.py::test_tensor_subclasses_are_not_called",),
    "hooks of the host": zoo("hooks-of-the-user", "optimizer-hooks-of-the-user"),
    "private names of torch live in one module": own(
        "private_names", "private_names_of_torch_live_in_one_module", "what_counts_as_private"
    ),
    "each private name can be gone": own(
        "fallbacks",
        "a_release_without_a_private_name",
        "a_release_whose_optimizers_step_otherwise",
        "every_private_name_has_a_fallback",
    ),
}

LEAVING: Rows = {
    "after any exit nothing is left, without the cyclic collector": (
        LEFT,
        "tests/test_nothing_left.py::test_nothing_is_kept_alive",
        "tests/test_nothing_left.py::test_the_watcher_dies_without_the_collector",
        "tests/test_nothing_left.py::test_the_footprint_sees_what_could_be_left",
    ),
    "closing inside an optimizer's hook, a forward hook, a gradient hook": (
        "tests/test_hostile_host.py::test_leaving_in_mid_step",
        "tests/test_hostile_host.py::test_entering_in_mid_step",
        f"{LEFT}[in_an_optimizer_hook]",
    ),
    "nested, re-entered and abandoned watchers": (
        f"{LEFT}[nested]",
        f"{LEFT}[crossed]",
        f"{LEFT}[abandoned]",
        "tests/test_nothing_left.py::test_a_watcher_can_be_entered_again_while_it_is_open",
        "tests/test_watcher.py::test_several_watchers_live_side_by_side",
        "tests/test_watcher.py::test_an_abandoned_watcher_ends_its_run",
    ),
    "KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError": (
        f"{LEFT}[KeyboardInterrupt]",
        f"{LEFT}[SystemExit]",
        f"{LEFT}[GeneratorExit]",
        f"{LEFT}[MemoryError]",
        "tests/test_contained.py::test_an_interrupt_that_lands_in_our_code_passes",
        *shapes("interrupted_in_mid_step"),
    ),
    "our own errors are contained, out-of-memory included": (
        "tests/test_contained.py::test_a_probe_that_fails_is_contained_and_said",
        "tests/test_contained.py::test_every_kind_of_failure_is_contained",
        "tests/test_contained.py::test_a_failing_sink_or_check_is_contained_and_said",
    ),
    "the host's errors pass": (
        "tests/test_hostile_host.py::test_what_on_alert_raises_passes_to_the_host",
        "tests/test_contained.py::test_the_traceback_of_a_crash_is_in_the_file_and_the_exception_is_unchanged",
    ),
}

MATRIX: dict[str, Rows] = {
    "what decides the design": DESIGN,
    "loops": LOOPS,
    "precision": PRECISION,
    "compilation": COMPILE,
    "passes": PASSES,
    "modules": MODULES,
    "values": VALUES,
    "ranks": RANKS,
    "processes and threads": PROCESS,
    "other people's loops": HOSTS,
    "the host's instruments": INSTRUMENTS,
    "leaving": LEAVING,
}
