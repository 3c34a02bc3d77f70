"""The rows of the table of terms (`theory/terms.py`) that are measured in every distance between views."""

from __future__ import annotations

from typing import Final

from cssl_cli.theory.term import CONSISTENT, EITHER, EXACT, HIGH, LOW, Declared, In, Point, Term, also

DELTA = Point("deltas", 0.5, " at {:g} δ₀")  # δ₀, the yardstick, is the median distance of clean images of two classes
YARDSTICK = Point("deltas", 1.0, " at {:g} δ₀")
BETWEEN = Point("deltas", 1.0, " at {:g} times d_A between classes", unit=("between_quantiles", "0.5"))

TERMS_OF_DISTANCES: Final[tuple[Term, ...]] = (
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
                 "median distances of clean images of two classes, of these images too high since over so few views "
                 "and by the main part that was found"),
        Declared("mean_sigma_low", EXACT, "1−σ (features)", axes=("deltas",),
                 key="one_minus_sigma_{distance}_at_yardstick",
                 called="1−σ {distance}, δ₀", head="1−σ", shown=In.SWEEP, also={"pixels": In.FIGURE}, expected=-1,
                 share=True, of_views=True, point=YARDSTICK, complement=True, band="mean_sigma_high"),
        also("mean_sigma_high", EXACT, "σ over δ, the mean over classes, upper end", "deltas"),
        also("sigma_low_per_class", EXACT, "σ over δ of each class, lower end", "class", "deltas"),
        also("sigma_high_per_class", EXACT, "σ over δ of each class, upper end", "class", "deltas"),
        also("within_quantiles", HIGH, "quantiles of d_A within classes", "share"),
        Declared("trade_off", EITHER, "trade-off of views", key="trade_off_{distance}", called="trade-off {distance}",
                 also={"pixels": In.SWEEP}, expected=-1, of_views=True),
        also("same_image", LOW, "largest distance of two views of an image, mean"),
        also("same_class", HIGH, "least d_A to another image of the class, mean"),
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
)  # fmt: skip
