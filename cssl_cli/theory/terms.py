"""The table of terms: each term of the theory and each of its quantities, declared once.

The summary, the sections, the legends, the columns of sweeps, the rank correlations, the figures' labels and
docs/terms.md are drawn from it. To add a term: a file in its section's folder, and a row at the end of `TERMS`.
"""

from __future__ import annotations

from typing import Final

from cssl_cli.theory.term import EVERYWHERE, Declared, Direction, In, Point, Term

# The sections of `cssl analyze`, and the title of the table of their quantities.
SECTIONS: Final = {
    "alignment": "Alignment",
    "divergence": "Divergence",
    "concentration": "Concentration",
    "lipschitz": "Lipschitz constant of the encoder with unit-norm output, per unit of pixel distance",
    "certificates": "Certificates",
    "losses": "Losses",
    "companions": "Companion measures",
    "spectrum": "Positive-pair spectrum",
}
EPSILON = Point("epsilons", 0.5, " at ε = {:g}")
DELTA = Point("deltas", 0.5, " at {:g} δ₀")  # δ₀, the yardstick, is the median distance of clean images of two classes
YARDSTICK = Point("deltas", 1.0, " at {:g} δ₀")
BETWEEN = Point("deltas", 1.0, " at {:g} times d_A between classes", unit=("between_quantiles", "0.5"))
SHOTS = (1, 5, 10, 50)  # labelled images of each class

UNBIASED: Direction = "unbiased"
LOW: Direction = "low"
HIGH: Direction = "high"
EITHER: Direction = "either"
CONSISTENT: Direction = "consistent"
EXACT: Direction = "exact for the table"


def also(name: str, errs: Direction, label: str, *axes: str) -> Declared:
    """A quantity that is in analysis.json, and in no table of the form of a row a quantity."""
    return Declared(name, errs, label, table=None, axes=axes)


def of_info_nce(loss: Declared) -> tuple[Declared, ...]:
    """The quantities of InfoNCE, at the training's temperature or the paper's; `loss` is among them."""
    return (
        Declared("alignment_part", UNBIASED, "alignment part"),
        Declared("divergence_part", UNBIASED, "divergence part"),
        loss,
        Declared("collapse_floor", EXACT, "floor of the divergence part"),
        Declared("collapse_gap", EXACT, "gap to the floor"),
        Declared("mean_inner_product", UNBIASED, "mean μk·μl"),
        Declared("mean_bound", EXACT, "   bounded by loss and centres: ≤"),
        Declared("mean_bound_from_loss_alone", EXACT, "   bounded by the loss alone: ≤"),
        Declared("pair_bound", EXACT, "μk·μl of a pair ≤ (no τ)"),
        Declared("theorem_3", EXACT, "μk·μl of a pair ≤ (Thm 3, our τ)"),
    )


# In the order in which they draw at random: a term that comes last leaves the numbers of the others as they are. Costs
# that grow with the square of the images, or faster, are met by a random part of them (max_images); the samples say so.
TERMS: tuple[Term, ...] = (
    Term("alignment", "alignment", ".alignment.alignment:alignment", table=None, quantities=(
        Declared("unbiased", UNBIASED, "alignment", shown=EVERYWHERE, key="alignment", head="align", expected=-1,
                 meaning="E‖f(v) − f(v′)‖²"),
        also("plug_in", LOW, "alignment, equal views included"),
        also("per_class", UNBIASED, "alignment of each class", "class"),
    )),
    Term("R_epsilon", "alignment", ".alignment.r_epsilon:r_epsilon", table=None, quantities=(
        also("epsilons", EXACT, "the grid of ε", "epsilons"),
        Declared("curve", LOW, "R_ε", axes=("epsilons",), shown=EVERYWHERE, key="R_epsilon", expected=-1, share=True,
                 point=EPSILON, scale=1, digits=2, of_views=True,
                 meaning="at ε = {epsilon}, the share of images with two views further apart, too low since over "
                 "{views} only"),
        also("diameter_quantiles", LOW, "quantiles of the diameter of an image's views", "share"),
        also("curve_by_views", LOW, "R_ε by the number of views", "further views", "epsilons"),
        also("mean_diameter_by_views", LOW, "mean diameter by the number of views", "further views"),
    )),
    Term("R_epsilon_bounds", "alignment", ".alignment.r_epsilon_bounds:r_epsilon_bounds", table=None,
         settings={"more_views": (16, 64, 256)}, quantities=(
        also("stored_views", EXACT, "views ≤", "epsilons"),
        also("iid_views", UNBIASED, "iid ≤", "epsilons"),
        also("converse", EXACT, "converse ≥", "epsilons"),
        also("theorem_2", LOW, "Thm 2 ≤", "epsilons"),
        also("theorem_2_sharp", LOW, "sharper ≤", "epsilons"),
        also("more_views", UNBIASED, "R_ε of more views ≤", "share", "epsilons"),
        also("theorem_2_constants", LOW, "n, m and LM of Theorem 2", "name"),
    )),
    Term("class_centers", "divergence", ".divergence.class_centers:class_centers", (
        also("priors", EXACT, "p_k", "class"),
        also("squared_norms", UNBIASED, "‖μ_k‖²", "class"),
        also("norms", CONSISTENT, "‖μ_k‖", "class"),
        also("inner_products", UNBIASED, "μk·μl", "classes", "classes"),
        also("squared_distances", UNBIASED, "‖μk − μl‖²", "classes", "classes"),
        also("distances", CONSISTENT, "‖μk − μl‖", "classes", "classes"),
        Declared("mean_inner_product", UNBIASED, "mean μk·μl", shown=EVERYWHERE, head="μk·μl", expected=-1,
                 meaning="the mean inner product of class centres"),
        Declared("simplex_inner_product", EXACT, "−1/(K − 1), the simplex"),
        Declared("largest_inner_product", HIGH, "largest μk·μl"),
        Declared("closest_pair", LOW, "least ‖μk − μl‖", shown=In.SUMMARY | In.SWEEP | In.CONTROLS, head="‖μk−μl‖",
                 expected=1),
    )),
    Term("spread", "divergence", ".divergence.spread:spread", (
        Declared("within", UNBIASED, "spread within, images"),
        Declared("within_views", UNBIASED, "spread within, views"),
        Declared("intra_class", UNBIASED, "intra-class distance"),
        Declared("between", UNBIASED, "spread between"),
        Declared("ratio", CONSISTENT, "within / between", shown=EVERYWHERE, head="W/B", expected=-1, digits=1,
                 parts=("within", "between"),
                 meaning="the spread within classes over that between their centres, – where the latter is not above "
                 "its noise"),
        also("within_per_class", UNBIASED, "spread within each class, images"),
        also("within_views_per_class", UNBIASED, "spread within each class, views"),
        also("intra_class_per_class", UNBIASED, "intra-class distance of each class"),
    )),
    Term("mean_feature", "divergence", ".divergence.mean_feature:mean_feature", pieces={"weights": "class_weights"},
         quantities=(Declared("squared_norm", UNBIASED, "‖E f‖²"),)),
    Term("center_error", "certificates", ".certificates.center_error:nearest_center_error", table="own centres",
         quantities=(
        Declared("error", EXACT, "error", shown=In.CONTROLS, key="in_table_error", called="error on these images",
                 expected=-1, share=True),
        also("error_per_class", EXACT, "error in each class"),
        Declared("chance", EXACT, "chance: one name for all"),
    )),
    Term("theorem_1", "certificates", ".certificates.theorem_1:theorem_1", table="Theorem 1", quantities=(
        Declared("rho", EXACT, "ρ, least", condition=True),
        also("rho_per_class", EXACT, "ρ of each class"),
        Declared("delta", EXACT, "   at δ"),
        Declared("epsilon", EXACT, "   and ε"),
        Declared("rho_needed", EXACT, "   would have to be below"),
        also("sigma", EXACT, "σ there"),
        also("R_epsilon", EXACT, "R_ε there"),
        Declared("error_bound", EXACT, "Theorem 1, the paper's", table="own centres"),
        Declared("sharp_error_bound", EXACT, "Theorem 1, sharpened", table="own centres"),
        Declared("pixel_rho", EITHER, "   with pixel distances"),
        also("pixel_delta", EXACT, "δ in pixels there"),
        also("pixel_epsilon", EXACT, "ε there"),
    )),
    Term("lemma_3_1", "certificates", ".certificates.lemma_3_1:lemma_and_corollaries", table="Lemma 3.1", quantities=(
        also("deltas", EXACT, "the grid of δ", "grid of δ"),
        also("epsilons", EXACT, "the grid of ε", "grid of ε"),
        also("sigma", EXACT, "σ over δ", "grid of δ"),
        also("R_epsilon", EXACT, "R_ε over ε", "grid of ε"),
        also("right_side", EXACT, "(1 − σ) + R_ε over δ and ε", "grid of δ", "grid of ε"),
        also("least_right_side", EXACT, "(1 − σ) + R_ε, least"),
        also("least_delta", EXACT, "δ there"),
        also("least_epsilon", EXACT, "ε there"),
        Declared("counted_bound", EXACT, "(1 − σ) + R_ε, all right"),
        Declared("infonce_bound", LOW, "   with InfoNCE for R_ε"),
        Declared("cross_correlation_bound", LOW, "   with cross-correlation"),
        also("slack", EXACT, "slack of the condition over δ and ε", "grid of δ", "grid of ε"),
        Declared("largest_slack", EXACT, "slack of the condition, largest", condition=True),
        Declared("slack_delta", EXACT, "   at δ"),
        Declared("slack_epsilon", EXACT, "   and ε"),
        Declared("slack_right_side", EXACT, "   (1 − σ) + R_ε there"),
        also("slack_per_class", EXACT, "slack of each class there"),
    )),
    Term("certificate_a", "certificates", ".certificates.theorem_a:certificate_a", table="own centres", quantities=(
        Declared("error_bound", EXACT, "Theorem A"),
        also("certified_share_per_class", EXACT, "certified share of each class"),
        also("certified_per_class", EXACT, "whether a class is certified"),
        also("margin_per_class", EXACT, "margin of each class"),
        also("good_share_per_class", EXACT, "share in the set of each class"),
        also("delta_per_class", EXACT, "δ of each class"),
        also("epsilon_per_class", EXACT, "ε of each class"),
    )),
    Term("certificate_b", "certificates", ".certificates.theorem_b:certificate_b", table="own centres", quantities=(
        Declared("error_bound", EXACT, "Theorem B"),
        also("error_bound_per_class", EXACT, "bound in each class"),
        also("certified_share_per_class", EXACT, "certified share of each class"),
        also("eccentricity_per_class", LOW, "eccentricity of each class"),
        also("distance_per_class", HIGH, "d_A within each class"),
        also("radius_per_class", EITHER, "radius of the views, each class"),
        also("half_distance_per_class", EITHER, "half the distance to the nearest centre"),
        also("margin_quantiles", EXACT, "quantiles of the margin", "share"),
        also("margin_median_per_class", EXACT, "median margin of each class"),
    )),
    Term("certificate_c", "certificates", ".certificates.theorem_c:certificate_c", table="own centres", quantities=(
        Declared("error_bound", EXACT, "Theorem C", shown=In.CONTROLS, key="certificate_c",
                 called="certified ≤ (Theorem C)", expected=-1, share=True),
        also("error_bound_per_class", EXACT, "bound in each class"),
        also("certified_share_per_class", EXACT, "certified share of each class"),
        also("by_views", EXACT, "bound by the number of views", "views"),
        also("margin_quantiles", EXACT, "quantiles of the margin", "share"),
        also("margin_median_per_class", EXACT, "median margin of each class"),
    )),
    Term("combined", "certificates", ".certificates.any_theorem:combined", table="own centres", quantities=(
        Declared("error_bound", EXACT, "any of A, B, C"),
        also("error_bound_per_class", EXACT, "bound in each class"),
        also("certified_share_per_class", EXACT, "certified share of each class"),
    )),
    Term("variance_bound", "certificates", ".certificates.variance_bound:variance_bound", table="own centres",
         quantities=(
        Declared("error_bound", EXACT, "variance alone (Cantelli)"),
        also("error_bound_per_class", EXACT, "bound in each class"),
    )),
    Term("population", "certificates", ".certificates.population:population", table="new images",
         pieces={"generator": "generator_of_halves"}, quantities=(
        Declared("error", UNBIASED, "error", shown=In.SUMMARY, called="error, new images", share=True),
        Declared("error_bound", HIGH, "certified ≤, 95 %", shown=In.SUMMARY, called="certified ≤, new images",
                 share=True),
        Declared("chance", EXACT, "chance: one name for all"),
        Declared("error_upper", HIGH, "error ≤, 95 %, directly"),
        Declared("uncertified_share", UNBIASED, "images without certificate", shown=In.CONTROLS,
                 called="uncertified held out", expected=-1, share=True),
        also("by_views", HIGH, "bound by the number of views", "views"),
        also("error_per_class", UNBIASED, "error in each class"),
        also("error_bound_per_class", HIGH, "bound in each class"),
    )),
    Term("info_nce", "losses", ".losses.info_nce:info_nce", table="InfoNCE", settings={"max_images": 300},
         quantities=of_info_nce(Declared("loss", UNBIASED, "loss", shown=In.CONTROLS, key="info_nce",
                                         called="InfoNCE", expected=-1))),
    Term("nt_xent", "losses", ".losses.nt_xent:nt_xent", table="NT-Xent", settings={"num_batches": 20}, quantities=(
        also("batch_size", EXACT, "images of a batch"),
        Declared("alignment_part", UNBIASED, "alignment part"),
        Declared("divergence_part", CONSISTENT, "divergence part"),
        Declared("loss", CONSISTENT, "loss", shown=In.CONTROLS, key="nt_xent", called="NT-Xent", expected=-1),
        Declared("collapse_floor", EXACT, "floor of the divergence part"),
        Declared("collapse_gap", UNBIASED, "gap to the floor"),
        Declared("mean_inner_product", UNBIASED, "mean μk·μl"),
        Declared("mean_bound", CONSISTENT, "   bounded by the loss: ≤"),
    )),
    Term("cross_correlation", "losses", ".losses.cross_correlation:cross_correlation", table="cross-correlation",
         pieces={"table": "standardized"}, quantities=(
        Declared("invariance", CONSISTENT, "Σ (1 − M_ii)²"),
        Declared("redundancy_loss", CONSISTENT, "‖M − I‖²", shown=In.CONTROLS, expected=-1),
        also("invariance_plug_in", EXACT, "Σ (1 − M_ii)², equal views included"),
        also("redundancy_loss_plug_in", EXACT, "‖M − I‖², equal views included"),
        also("constant_coordinates", EXACT, "coordinates without variance"),
        Declared("within_covariance_norm", EXACT, "‖Σ_W‖"),
        also("within_covariance_norm_unbiased", CONSISTENT, "‖Σ_W‖ of the population"),
        Declared("rms_inner_product", EXACT, "root mean square of μk·μl"),
        Declared("rms_bound", EXACT, "   bounded: ≤"),
        Declared("largest_inner_product", EXACT, "largest |μk·μl|"),
        Declared("pair_bound", EXACT, "   bounded: ≤"),
        Declared("theorem_4_bound", EXACT, "   bounded (Theorem 4): ≤"),
        Declared("centred_inner_product", EXACT, "|μk·μl + 1| of that pair"),
        Declared("centred_pair_bound", EXACT, "   bounded: ≤"),
        Declared("alignment", UNBIASED, "alignment"),
        Declared("alignment_bound", EXACT, "   bounded (Lemma 4.1): ≤"),
    )),
    Term("explicit_tau", "losses", ".losses.theorem_4:explicit_tau", table="cross-correlation",
         pieces={"table": "standardized"}, quantities=(
        Declared("within_covariance_trace", EXACT, "   ≤ tr Σ_W", after="cross_correlation.within_covariance_norm"),
        Declared("trace_bound", EXACT, "   ≤ by main parts and diameters",
                 after="explicit_tau.within_covariance_trace"),
        also("share_per_class", EXACT, "share in the main part of each class"),
        also("reach_per_class", EXACT, "reach of the main part of each class"),
        Declared("theorem_4_bound", EXACT, "   with an explicit τ′: ≤", after="cross_correlation.theorem_4_bound"),
    )),
    Term("uniformity", "companions", ".companions.uniformity:uniformity", pieces={"weights": "class_weights"},
         quantities=(
        Declared("uniformity", CONSISTENT, "uniformity", shown=In.SUMMARY | In.SWEEP | In.CONTROLS, head="unif.",
                 expected=-1),
    )),
    Term("effective_rank", "companions", ".companions.effective_rank:effective_rank", pieces={"table": "raw_clean"},
         quantities=(
        also("num_dimensions", EXACT, "D"),
        Declared("rankme", CONSISTENT, "RankMe", shown=EVERYWHERE, expected=1, digits=1,
                 meaning="the effective rank, of unscaled features"),
        Declared("alpha_req", CONSISTENT, "α-ReQ"),  # which likes 1 best, and expects better encoders on no side
        Declared("nesum", CONSISTENT, "NESum", shown=In.CONTROLS, expected=1),
    )),
    Term("lidar", "companions", ".companions.lidar:lidar", pieces={"table": "raw"}, quantities=(
        Declared("lidar", EITHER, "LiDAR", shown=In.CONTROLS, expected=1),
    )),
    Term("chaos", "companions", ".companions.augmentation_confusion:chaos", settings={"max_images": 1000},
         quantities=(
        Declared("acr", EITHER, "ACR"),
        also("gacr_min", EITHER, "GACR, least"),
        Declared("arc", EXACT, "ARC", shown=In.CONTROLS, expected=1),
        Declared("gacr_mean", EITHER, "GACR, mean"),
        also("gacr_max", EITHER, "GACR, largest"),
        also("garc_min", EXACT, "GARC, least"),
        also("garc_mean", EXACT, "GARC, mean"),
        also("garc_max", EXACT, "GARC, largest"),
    )),
    Term("neural_collapse", "companions", ".companions.neural_collapse:neural_collapse",
         pieces={"table": "raw_clean"}, quantities=(
        Declared("nc1", CONSISTENT, "NC1", shown=In.CONTROLS, expected=-1),
        Declared("ratio", CONSISTENT, "tr Σ_W / tr Σ_B, plain", shown=In.CONTROLS, key="plain_ratio",
                 called="plain tr Σ_W / tr Σ_B", expected=-1),
        Declared("cdnv", CONSISTENT, "CDNV, mean over pairs", shown=In.CONTROLS, called="CDNV", expected=-1),
        Declared("cdnv_closest", CONSISTENT, "CDNV, worst pair"),
        Declared("directional_cdnv", CONSISTENT, "directional CDNV, mean"),
        Declared("directional_cdnv_worst", CONSISTENT, "directional CDNV, worst pair"),
    )),
    Term("class_overlap", "certificates", ".concentration.class_overlap:class_overlap", table="class overlap",
         pieces={"deltas": "grid_deltas", "delta": "delta_of_least_rho"}, settings={"max_images": 1000}, quantities=(
        Declared("least_distance", HIGH, "nearest views of two classes"),
        also("deltas", EXACT, "the grid of δ", "grid"),
        also("share_within", LOW, "images within δ of another class, over δ", "grid"),
        Declared("share_within_delta", LOW, "   images within ρ's δ of such"),
        Declared("share_coinciding", LOW, "   images that meet such a view"),
    )),
    Term("connected_parts", "certificates", ".certificates.connected_parts:connected_parts", table="own centres",
         settings={"max_images": 500}, quantities=(
        Declared("error_bound", EXACT, "   with connected parts", after="certificate_a.error_bound"),
        also("certified_share_per_class", EXACT, "certified share of each class"),
        also("certified_per_class", EXACT, "whether a class is certified"),
        also("margin_per_class", EXACT, "margin of each class"),
        also("part_share_per_class", EXACT, "share in the part of each class"),
        also("delta_per_class", EXACT, "δ of each class"),
        also("epsilon_per_class", EXACT, "ε of each class"),
        also("hops_per_class", EXACT, "steps in the part of each class"),
        also("step_per_class", EXACT, "reach of the part of each class"),
        also("clique_step_per_class", EXACT, "reach of the same images as a clique"),
        also("edge_deltas", EXACT, "δ by the share of pairs that are edges", "share"),
        also("edges_across", EITHER, "edges across classes", "share"),
        also("pairs_across", EXACT, "pairs across classes"),
    )),
    Term("info_nce_paper", "losses", ".losses.info_nce:info_nce_paper", table="InfoNCE, T = 1",
         settings={"max_images": 300}, quantities=of_info_nce(Declared("loss", UNBIASED, "loss"))),
    Term("augmented_error", "certificates", ".certificates.augmented_error:augmented_error", table="outside centres",
         pieces={"generator": "generator_of_halves"}, quantities=(
        Declared("clean", UNBIASED, "half of the images labelled"),
        Declared("views", UNBIASED, "   their augmented views"),
    )),
    Term("few_labels", "certificates", ".certificates.few_labels:few_labels", table="outside centres",
         settings={"shots": SHOTS}, quantities=tuple(
        Declared(f"error_{shots}", UNBIASED, f"{shots} labelled image{'s' if shots > 1 else ''} a class")
        for shots in SHOTS
    )),
    Term("few_shot_bound", "certificates", ".certificates.few_shot_bound:few_shot_bound", table="outside centres",
         settings={"shots": SHOTS}, quantities=(
        *(Declared(f"cantelli_{shots}", CONSISTENT, "   Cantelli: ≤", after=f"few_labels.error_{shots}")
          for shots in SHOTS),
        *(Declared(f"luthra_{shots}", CONSISTENT, "   Luthra et al.: ≤", after=f"few_shot_bound.cantelli_{shots}")
          for shots in SHOTS),
    )),
    Term("clid", "companions", ".companions.clid:clid", settings={"max_images": 1000},
         pieces={"table": "raw_clean", "weights": "class_weights", "generator": "generator_of_halves"}, quantities=(
        Declared("intrinsic_dimension", CONSISTENT, "intrinsic dimension", shown=In.SWEEP | In.CONTROLS, expected=1),
        Declared("cluster_learnability", EITHER, "cluster learnability", shown=In.SWEEP | In.CONTROLS, expected=1),
        also("learnability_by_clustering", EITHER, "cluster learnability, start by start", "starts"),
        Declared("cluster_chance", EXACT, "   by chance"),
    )),
    Term("risk_decomposition", "companions", ".companions.risk_decomposition:risk_decomposition",
         pieces={"table": "raw_clean", "generator": "generator_of_halves"}, quantities=(
        Declared("best_probe_risk", LOW, "probe risk, in-sample", shown=In.SWEEP | In.CONTROLS, expected=-1,
                 share=True),
        Declared("probe_generalization", HIGH, "   more for a trained one", shown=In.SWEEP | In.CONTROLS,
                 called="probe generalization", expected=-1, share=True),
        Declared("probe_risk", UNBIASED, "probe risk, held out", shown=In.CONTROLS, expected=-1, share=True),
    )),
    Term("positive_pairs", "spectrum", ".spectrum.positive_pairs:positive_pairs", pieces={"table": "raw"}, quantities=(
        Declared("share", CONSISTENT, "share about the class", shown=In.SUMMARY | In.SWEEP | In.CONTROLS,
                 key="class_share", called="class share", expected=1, digits=3,
                 meaning="what two views of an image share that is about its class, over all they share"),
        Declared("about_class", CONSISTENT, "   about the class, nats"),
        Declared("shared", CONSISTENT, "   I(v; v′), nats", shown=In.SWEEP | In.CONTROLS, key="shared_information",
                 called="I(v; v′)", expected=-1),
        Declared("of_image", CONSISTENT, "I(v; x), nats"),
        Declared("leading_label_energy", LOW, "label energy, K − 1 functions", shown=In.SWEEP | In.CONTROLS,
                 key="label_energy", called="label energy", expected=1, share=True),
        Declared("tau", CONSISTENT, "τ, Contextures", shown=In.SWEEP | In.CONTROLS, key="contexture_tau",
                 called="τ (Contextures)", expected=-1),
        also("tau_dimension", CONSISTENT, "number of functions at τ"),
        also("functions", EXACT, "numbers of leading functions", "functions"),
        also("eigenvalues", CONSISTENT, "λ over functions", "functions"),
        also("in_sample", CONSISTENT, "λ over functions, in-sample", "functions"),
        also("label_energy", LOW, "label energy over functions", "functions"),
    )),
    # Measured by `cssl_cli.runs`, on more than the features of one encoder.
    Term("concentration", "concentration", ".concentration.sigma:concentration", of="distance", table=None, quantities=(
        also("yardstick", CONSISTENT, "δ₀, the median distance of clean images of two classes"),
        also("deltas", EXACT, "the grid of δ", "deltas"),
        also("sigma_low", EXACT, "σ over δ, the least over classes, lower end", "deltas"),
        also("sigma_high", EXACT, "σ over δ, the least over classes, upper end", "deltas"),
        Declared("mean_sigma_low", EXACT, "1−σ (features)", axes=("deltas",), key="one_minus_sigma_{distance}",
                 called="1−σ {distance}, ½ δ₀", head="1−σ", shown=In.SUMMARY | In.SWEEP,
                 also={"pixels": In.COLUMN | In.FIGURE, "trained": In.FIGURE | In.CONTROLS}, expected=-1, share=True,
                 of_views=True, point=DELTA, complement=True, band="mean_sigma_high",
                 meaning="the share of images in % outside the main part of their class in {distance}, at δ = {delta} "
                 "median distances of clean images of two classes, too high since over so few views and by the main "
                 "part that was found"),
        Declared("mean_sigma_low", EXACT, "1−σ (features)", axes=("deltas",),
                 key="one_minus_sigma_{distance}_at_yardstick",
                 called="1−σ {distance}, δ₀", head="1−σ", shown=In.SWEEP, also={"pixels": In.FIGURE}, expected=-1,
                 share=True, of_views=True, point=YARDSTICK, complement=True, band="mean_sigma_high"),
        also("mean_sigma_high", EXACT, "σ over δ, the mean over classes, upper end", "deltas"),
        also("sigma_low_per_class", EXACT, "σ over δ of each class, lower end", "class", "deltas"),
        also("sigma_high_per_class", EXACT, "σ over δ of each class, upper end", "class", "deltas"),
        also("within_quantiles", HIGH, "quantiles of d_A within classes", "share"),
        also("between_quantiles", HIGH, "quantiles of d_A between classes", "share"),
        Declared("sigma_relative", EXACT, "1−σ rel. (features)", axes=("deltas",),
                 key="one_minus_sigma_relative_{distance}",
                 called="1−σ rel. {distance}", head="1−σ rel.", shown=In.SWEEP, also={"pixels": In.COLUMN | In.FIGURE},
                 expected=-1, share=True, of_views=True, point=BETWEEN, complement=True, band="sigma_relative_high",
                 meaning="the same at δ = the median augmented distance between classes, its between-class "
                 "counterpart"),
        Declared("within_over_between", EXACT, "d_A w/b (features)", key="within_over_between_{distance}",
                 called="d_A w/b {distance}", head="d_A w/b", shown=In.SWEEP, also={"trained": In.CONTROLS},
                 expected=-1, digits=3, of_views=True,
                 meaning="median distance of nearest views within classes over that between them"),
        also("sigma_relative_high", EXACT, "σ at multiples of the median d_A between classes, upper end", "deltas"),
        Declared("nearest_same_class", EXACT, "nearest of its class", key="nearest_same_class_{distance}",
                 called="nearest {distance}", head="nearest", shown=In.SWEEP, also={"trained": In.CONTROLS},
                 expected=1, share=True, of_views=True, meaning="images whose nearest other image is of their class"),
        also("least_between", HIGH, "least distance of views of two classes"),
        also("share_near_other_class", LOW, "images within δ of another class, over δ", "deltas"),
        also("share_meeting_other_class", LOW, "images that meet a view of another class"),
    )),
    Term("star", "concentration", ".concentration.star:star", of="distance", table=None, quantities=(
        also("star_deltas", EXACT, "the grid of δ", "deltas"),
        also("mean_star_sigma", LOW, "σ of the population by stars, mean over classes", "deltas"),
        also("star_sigma", LOW, "σ of the population by stars, least over classes", "deltas"),
        also("star_sigma_per_class", LOW, "σ of the population by stars, each class", "class", "deltas"),
    )),
    Term("refined_distance", "concentration", ".concentration.refined_distance:refined_concentration", of="distance",
         table=None, quantities=(
        also("sampled_within_median", HIGH, "median d_A within classes, stored views"),
        also("refined_within_median", HIGH, "median d_A within classes, after a search"),
        also("sampled_between_median", HIGH, "median d_A between classes, stored views"),
        also("refined_between_median", HIGH, "median d_A between classes, after a search"),
        also("sampled_mean_sigma", EITHER, "σ over δ, stored views", "deltas"),
        also("refined_mean_sigma", EITHER, "σ over δ, after a search", "deltas"),
    )),
    Term("lipschitz", "lipschitz", ".lipschitz.bounds:lipschitz", of="encoder", quantities=(
        Declared("largest_ratio", LOW, "≥ largest ratio over views"),
        Declared("largest_ratio_same_image", LOW, "≥ the same, views of one image"),
        Declared("local_jacobian_largest", LOW, "≥ largest local Jacobian norm"),
        Declared("local_jacobian_median", LOW, "   median local Jacobian norm"),
        Declared("spectral_product", HIGH, "≤ product of spectral norms"),
        Declared("spectral_product_unscaled", HIGH, "   the same before unit norm"),
    )),
    Term("ranking", "spectrum", ".spectrum.class_share:share_quantities", of="augmentation", table=None, quantities=(
        Declared("share", LOW, "share about the class, before training", shown=In.SWEEP | In.COLUMN | In.FIGURE,
                 called="share before training", head="share", expected=1, share=True, digits=2,
                 meaning="what two views of an image share about its class, in % of all they share, in fixed features "
                 "before training, one number for all seeds"),
        Declared("shared", HIGH, "I(v; v′) before training, nats", shown=In.SWEEP, called="I(v; v′) before training",
                 expected=-1),
        Declared("about_class", EITHER, "about the class before training, nats", shown=In.SWEEP,
                 called="about the class before training", expected=1),
    )),
)  # fmt: skip
