"""Ways to forge a run, as a hostile party would who can make all digests anew: a table of small edits.

Each entry: what is forged, on which run, by which edit, and what catches it:

* ``"files"``: ``certimed verify RUN``;
* ``"redraw"``: ``certimed verify RUN --resample N`` says "different";
* ``"circumstances"``: the same says "consistent only", and names what differs;
* ``"nothing: ..."``: neither, with the reason.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from verification.folders import BROKEN, GEOMETRY, ITEMS, Folder, Work
from verification.honest import class_certificate

from certimed.certificates import NativeRadius
from certimed.certificates.arrays import arrays_digest
from certimed.integrity import ids_digest
from certimed.noise import Placement
from certimed.operators import Geometry
from certimed.operators.geometry import Axis
from certimed.verification.masks import arrays_name

WORKS = {
    "grid": Work(),
    "float32": Work(noise="float32"),
    "planned": Work(budget="planned:0.05@2000"),
    "looks": Work(budget="looks:100,500", bound="best"),
    "bet": Work(budget="betting:0.1@1000"),
    "masks": Work("mask", "pixels:60,120,300/0.05"),
    "fixed masks": Work("mask", "100", taus=(0.75,)),
    "settings": Work(vary=("window-center=30.0grey", "window-width=0.2")),
    "masks of settings": Work("mask", "100", taus=(0.75,), vary=("window-center=30.0grey", "window-width=0.2")),
}
FILES, REDRAW, CIRCUMSTANCES, NOTHING = "files", "redraw", "circumstances", "nothing: "


@dataclass(frozen=True)
class Forgery:
    """One kind: on which run, the edit, and what catches it."""

    run: str
    edit: Callable[[Folder], None]
    caught_by: str


def proved(folder: Folder, method: str = "plain", looks: int = 2) -> dict[str, Any]:
    """A certificate that proves something, after several looks."""
    return next(
        one for one in folder.certificates
        if one["method"] == method and one["claim"]["radius"] > 0 and len(one["samples"]["looks"]) >= looks
    )  # fmt: skip


def abstained(folder: Folder) -> dict[str, Any]:
    """A certificate that proves nothing."""
    return next(one for one in folder.certificates if one["claim"]["abstained"])


def place(part: str, value: Any, *names: str, of: Callable[[Folder], Any] = proved) -> Callable[[Folder], None]:
    """Set a field of a certificate's part, or of the certificate itself where ``part`` is empty."""

    def edit(folder: Folder) -> None:
        found = of(folder)[part] if part else of(folder)
        for name in names[:-1]:
            found = found[name]
        found[names[-1]] = value(found[names[-1]]) if callable(value) else value

    return edit


def everywhere(*names: str, value: Any, request: tuple[str, ...] | None = None) -> Callable[[Folder], None]:
    """Set a field of all certificates, and of the manifest."""

    def edit(folder: Folder) -> None:
        for found in [*folder.certificates, *([folder.manifest] if request else [])]:
            path = request if found is folder.manifest and request else names
            for name in path[:-1]:
                found = found[name]
            found[path[-1]] = value(found[path[-1]]) if callable(value) else value

    return edit


def manifest(*names: str, value: Any) -> Callable[[Folder], None]:
    """Set a field of the manifest."""

    def edit(folder: Folder) -> None:
        found = folder.manifest
        for name in names[:-1]:
            found = found[name]
        found[names[-1]] = value

    return edit


def record(name: str, value: Any, item: str = "3.png") -> Callable[[Folder], None]:
    """Set a field of a record."""

    def edit(folder: Folder) -> None:
        found = folder.record(item)
        found[name] = value(found[name]) if callable(value) else value

    return edit


def look(number: int, at: int, by: int, of: Callable[[Folder], Any] = proved) -> Callable[[Folder], None]:
    """Move one integer of one look."""

    def edit(folder: Folder) -> None:
        of(folder)["samples"]["looks"][number][at] += by

    return edit


def real_radius(certificate: dict[str, Any]) -> float:
    """The radius for real perturbations."""
    return Placement(**certificate["placement"]).real_radius(certificate["claim"]["radius"])


def invented(folder: Folder, share: float = 0.97, item: str | None = None) -> dict[str, Any]:
    """A certificate with counts of the forger's wish, and every number and look that would follow from them."""
    mine = proved(folder) if item is None else folder.certificate(item)
    spec, noise = mine["samples"]["budget"], folder.manifest["request"]["noise"]
    made = class_certificate(
        spec, _two(share, mine), sigma=0.25, noise=noise, n0=20, seed=5, shape=tuple(mine["shape"]),
        bound=mine["claim"]["bound"],
    ).to_dict()  # fmt: skip
    mine["claim"], mine["samples"] = made["claim"], made["samples"]
    mine["native"] = NativeRadius.of(real_radius(mine), GEOMETRY).to_dict()
    return mine


def _two(share: float, mine: dict[str, Any]) -> list[float]:
    return [share, 1 - share] if mine["claim"]["prediction"] == 0 else [1 - share, share]


def first_look_claims_all(folder: Folder) -> None:
    """The counts of a look are made up so that a large radius follows; all later ones stay."""
    mine = proved(folder)
    looks, n = mine["samples"]["looks"], mine["samples"]["n"]
    better = class_certificate(
        f"grid:{0.5}@{n}", _two(0.995, mine), noise="grid", n0=20, seed=1, shape=tuple(mine["shape"])
    ).to_dict()  # fmt: skip
    mine["claim"]["p_lower"], mine["claim"]["radius"] = better["claim"]["p_lower"], better["claim"]["radius"]
    size = looks[0][0]
    looks[0], mine["samples"]["proved_at"] = [size, size, 0], 0


def lucky_first_look(folder: Folder) -> None:
    """All rivals of the whole sample are said to come after the first looks, which chance does not do."""
    mine = proved(folder, looks=4)
    for look in mine["samples"]["looks"][:2]:
        look[1:] = [look[0], 0]


def dropped(folder: Folder) -> None:
    """An image is left out, and the manifest told so."""
    folder.records = [one for one in folder.records if one["item"] != "3.png"]
    kept = [one["item"] for one in folder.records]
    folder.manifest["data"] |= {"images": len(kept), "ids_sha256": ids_digest(kept)}


def without_failure(folder: Folder) -> None:
    """The image that failed is left out, and the manifest told so."""
    folder.records = [one for one in folder.records if one["status"] == "certified"]
    kept = [one["item"] for one in folder.records]
    folder.manifest["data"] |= {"images": len(kept), "ids_sha256": ids_digest(kept)}


def replaced(folder: Folder) -> None:
    """An image is replaced by a copy of a better one under its id."""
    copied = copy.deepcopy(folder.record("5.png"))
    folder.record("3.png").update(certificates=copied["certificates"])
    for one in folder.record("3.png")["certificates"]:
        one["item"] = "3.png"


def new_image(folder: Folder) -> None:
    """An image that nobody has is added."""
    copied = copy.deepcopy(folder.record("5.png"))
    copied["item"] = "7.png"
    for one in copied["certificates"]:
        one["item"] = "7.png"
    folder.records.append(copied)
    folder.manifest["data"] |= {"images": len(ITEMS) + 1, "ids_sha256": ids_digest([*ITEMS, "7.png"])}


def half_a_shard(folder: Folder) -> None:
    """The worse half is dropped, and the run called a shard."""
    kept = sorted(one["item"] for one in folder.records)[:4]
    folder.records = [one for one in folder.records if one["item"] in kept]
    folder.manifest["shard"] = {"index": 1, "count": 2, "images": 4, "ids_sha256": ids_digest(kept)}


def odd_shard(folder: Folder) -> None:
    """A shard of a size that the rule does not deal."""
    kept = sorted(one["item"] for one in folder.records)[:2]
    folder.records = [one for one in folder.records if one["item"] in kept]
    folder.manifest["shard"] = {"index": 1, "count": 2, "images": 2, "ids_sha256": ids_digest(kept)}


def failed(folder: Folder) -> None:
    """A certified image is said to have failed."""
    folder.record().update(status="failed", reason="it cannot be read", certificates=[], clean={}, scores={})


def mended(folder: Folder) -> None:
    """A failed image is certified by invention."""
    broken = folder.record(BROKEN)
    other = copy.deepcopy(folder.record("0.png"))
    broken.update(status="certified", reason=None, clean=other["clean"], certificates=other["certificates"])
    for one in broken["certificates"]:
        one["item"] = BROKEN


def seed_everywhere(folder: Folder) -> None:
    """The seed is another one in every place, so that the noise cannot be drawn again."""
    everywhere("seed", value=99, request=("request", "seed"))(folder)


def chosen_on_estimation(folder: Folder) -> None:
    """The candidate is the class that most estimation samples have; the selection samples are made to agree."""
    mine = next(
        one for one in folder.certificates
        if one["claim"]["selection"].index(max(one["claim"]["selection"])) != int(np.argmax(one["claim"]["counts"]))
        or 2 * max(one["claim"]["selection"]) < 1.9 * 20
    )  # fmt: skip
    swapped = mine["claim"]["selection"][::-1]
    mine["claim"]["prediction"] = 1 - mine["claim"]["prediction"]
    mine["claim"]["selection"] = swapped
    item, method = mine["item"], mine["method"]
    made = class_certificate(mine["samples"]["budget"], _two(0.75, mine), noise="grid", n0=20, seed=2).to_dict()
    mine["claim"], mine["samples"] = made["claim"], made["samples"]
    mine["native"] = NativeRadius.of(real_radius(mine), GEOMETRY).to_dict()
    assert (mine["item"], mine["method"]) == (item, method)


def kind_relabelled(folder: Folder) -> None:
    """A method that is tuned on the image is called a plain one, and its certificates end-to-end."""
    folder.manifest["methods"][1] |= {"kind": "plain", "scope": "end-to-end"}
    for one in folder.certificates:
        one["scope"] = "end-to-end"


def as_test_time_lora(folder: Folder) -> None:
    """LoRA that was tuned at the image is called end-to-end everywhere; its kind is still there."""
    folder.manifest["methods"][1] |= {"kind": "test-time-lora", "scope": "end-to-end"}
    for one in folder.certificates:
        one["scope"] = "end-to-end"


def as_adapted(digest: str | None) -> Callable[[Folder], None]:
    """A method that is tuned on the image is called an adapted model, fixed before."""

    def edit(folder: Folder) -> None:
        folder.manifest["methods"][1] |= {"kind": "adapted", "scope": "end-to-end", "adapter": digest}
        for one in folder.certificates:
            one["scope"] = "end-to-end"

    return edit


def renamed_method(folder: Folder) -> None:
    """It has another name, its certificates are called end-to-end, but its kind is still there."""
    folder.manifest["methods"][1] |= {"name": "tuned prompt, published setting", "scope": "end-to-end"}
    for one in folder.records:
        if one["status"] == "certified":
            one["clean"]["tuned prompt, published setting"] = one["clean"].pop("tuned")
    for one in folder.certificates:
        one["scope"] = "end-to-end"
        one["method"] = "tuned prompt, published setting" if one["method"] == "tuned" else one["method"]


def model_everywhere(folder: Folder) -> None:
    """Another model's identity, in every place."""
    folder.manifest["model"]["identity"] = folder.manifest["methods"][0]["identity"] = "e" * 64
    for one in folder.certificates:
        if one["method"] == "plain":
            one["provenance"]["model"] = "e" * 64


def drift_denied(folder: Folder) -> None:
    """Certificates of the float32 law are called those of the grid, whose distance they did not pay."""
    folder.manifest["request"]["noise"] = "grid"
    for one in folder.certificates:
        one["law"] = {"name": "gaussian-grid", "sigma": 0.25, "k": 257}


def law_everywhere(folder: Folder) -> None:
    """Certificates of the float32 law are called those of the grid, placements and all."""
    drift_denied(folder)
    for one in folder.certificates:
        slack = math.nextafter(4 / (2 * 65535), 1)
        one["placement"] = {"on_grid": False, "rounding": 0.0, "slack": slack}
        one["native"] = NativeRadius.of(real_radius(one), GEOMETRY).to_dict()


def weaker_preparation(folder: Folder) -> None:
    """Another preparation of the image, of a smaller norm, with the larger native radius that follows."""
    smaller = Geometry("same", 1, (Axis(16, (0, 0), 4, (0, 0)), Axis(16, (0, 0), 4, (0, 0))))
    for one in folder.record()["certificates"]:
        one["native"] = NativeRadius.of(real_radius(one), smaller).to_dict()


def swapped_arrays(folder: Folder) -> None:
    """Two images' arrays are swapped as files."""
    one, other = (folder.path / arrays_name(item, "plain", 0.75) for item in ("1.png", "3.png"))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def swapped_images(folder: Folder) -> None:
    """Two images' arrays are swapped, and all that their lines say of them."""
    for tau in (0.6, 0.75):
        one, other = (folder.path / arrays_name(item, "plain", tau) for item in ("1.png", "3.png"))
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
    for mine, its in zip(folder.record("1.png")["certificates"], folder.record("3.png")["certificates"]):
        for part in ("claim", "samples"):
            mine[part], its[part] = its[part], mine[part]


def swapped_taus(folder: Folder) -> None:
    """The certified pixels of the lower tau are said to be those of the higher."""
    path, layers = folder.layers(tau=0.75)
    _, lower = folder.layers(tau=0.6)
    np.savez_compressed(path, **(layers | {"certified": lower["certified"]}))


def layer(name: str, value: Callable[[Any], Any], *, digest: bool = True) -> Callable[[Folder], None]:
    """Change one array of a mask at every tau, and its digest."""

    def edit(folder: Folder) -> None:
        for certificate in folder.record()["certificates"]:
            path, layers = folder.layers(tau=certificate["claim"]["tau"])
            layers[name] = value(layers[name])
            np.savez_compressed(path, **layers)
            if digest:
                certificate["claim"]["arrays_sha256"] = arrays_digest(
                    {one: layers[one] for one in ("mask", "agreement")}
                )  # fmt: skip

    return edit


def threshold_lowered(folder: Folder) -> None:
    """Each mask's threshold is lowered by one, with the certified pixels, their share and the look."""
    certificate = folder.record()["certificates"][-1]
    claim = certificate["claim"]
    path, layers = folder.layers(tau=claim["tau"])
    lower = int(layers["agreement"][layers["agreement"] < claim["threshold"]].max())
    layers["certified"] = layers["agreement"] >= lower
    np.savez_compressed(path, **layers)
    claim |= {"threshold": lower, "share_certified": float(layers["certified"].mean())}
    certificate["samples"]["looks"][-1][1] = lower


def agreement_invented(folder: Folder) -> None:
    """Another image's masks, whose numbers all hold, under this one's id."""
    swapped_images(folder)


def scores_raised(folder: Folder) -> None:
    """Dice and accuracy are raised."""
    for scores in folder.record()["scores"].values():
        scores["per_class"]["guaranteed Dice"] = [0.85, 0.9]


def ulp_up(folder: Folder) -> None:
    """The radius is a unit in the last place larger, which is still below what the counts prove, as all is rounded."""
    claim = proved(folder)["claim"]
    claim["radius"] = math.nextafter(claim["radius"], 9)
    mine = proved(folder)
    mine["native"] = NativeRadius.of(real_radius(mine), GEOMETRY).to_dict()


def one_count(folder: Folder) -> None:
    """One count of an abstention moves from class to class, at the last look alone."""
    mine = abstained(folder)
    claim, last = mine["claim"], mine["samples"]["looks"][-1]
    top = claim["prediction"]
    claim["counts"][top] += 1
    claim["counts"][1 - top] -= 1
    last[1], last[2] = claim["counts"][top], claim["counts"][1 - top]


def respelt(budget: str) -> Callable[[Folder], None]:
    """Another budget, in the request and on every certificate."""

    def edit(folder: Folder) -> None:
        folder.manifest["request"]["budget"] = budget
        for one in folder.certificates:
            one["samples"]["budget"] = budget

    return edit


def alpha_everywhere(folder: Folder) -> None:
    """A smaller failure probability, in every place."""
    folder.manifest["request"]["alpha"] = 1e-5
    for one in folder.certificates:
        one["alpha"] |= {"level": 1e-5, "total": 1e-5}


def share_of_methods(folder: Folder) -> None:
    """The alpha of one is said to have been shared, so that a chosen one would look paid for."""
    proved(folder)["alpha"] = {"level": 0.0005, "total": 0.001, "of": 2, "why": "methods"}


def chosen_emptied(folder: Folder) -> None:
    """A choice among two, whose list is emptied."""
    proved(folder).update(scope="chosen at x", chosen_from=[])


def chosen_end_to_end(folder: Folder) -> None:
    """A choice among two that is called end-to-end."""
    proved(folder).update(chosen_from=["plain", "tuned"], scope="end-to-end")
    share_of_methods(folder)


def versions_everywhere(folder: Folder) -> None:
    """Another version of PyTorch, in every place."""
    for one in [*folder.certificates, folder.manifest]:
        one["provenance"]["versions"]["torch"] = "9.9"


def device_everywhere(folder: Folder) -> None:
    """Another kind of device, in every place: its noise cannot be drawn on this one."""
    for one in [*folder.certificates, folder.manifest]:
        one["provenance"]["device"] = "cuda:0"
    folder.manifest["request"]["device"] = "cuda:0"


def engine_in_the_request(folder: Folder) -> None:
    """Another engine than that of every certificate."""
    folder.manifest["request"]["speed"]["engine"] = "openvino"


def dtype_everywhere(folder: Folder) -> None:
    """Another precision, in every place."""
    for one in [*folder.certificates, folder.manifest]:
        one["provenance"]["dtype"] = "bfloat16"
    folder.manifest["request"]["speed"]["precision"] = "bfloat16"


def bet_lost(folder: Folder) -> None:
    """A lost bet is said to be won."""
    won = proved(folder, "tuned", 1)["claim"]
    lost = abstained(folder)
    lost["claim"] |= {"p_lower": won["p_lower"], "radius": won["radius"], "abstained": False}
    lost["samples"]["stop"] = {"kind": "answered", "above": 0.1}


def tau_everywhere(folder: Folder) -> None:
    """A higher tau, hence a larger radius, in every place."""
    folder.manifest["request"]["target"]["taus"] = [0.9]
    for one in folder.certificates:
        _, layers = folder.layers(one["item"], 0.75)
        np.savez_compressed(folder.path / arrays_name(one["item"], "plain", 0.9), **layers)
        one["claim"] |= {"tau": 0.9, "radius": 0.25 * 1.2815515655446004 * (1 - 1e-12)}
        one["native"] = NativeRadius.of(real_radius(one), GEOMETRY).to_dict()


def setting(name: str, value: Any, axis: int = 0) -> Callable[[Folder], None]:
    """Set a field of one setting of one certificate."""

    def edit(folder: Folder) -> None:
        found = proved(folder)["settings"]["axes"][axis]
        found[name] = value(found[name]) if callable(value) else value

    return edit


def rescaled(folder: Folder) -> None:
    """The noise on a setting is said to have been twice as large, in every place, with the reach that follows."""
    folder.manifest["request"]["vary"][0] = "window-center=60.0grey"
    for one in folder.certificates:
        one["settings"]["axes"][0]["scale"] = 60.0
        one["settings"]["axes"][0]["reach"] *= 2


def reference_moved(folder: Folder) -> None:
    """The image's own window is said to have been another one, on all its certificates."""
    for one in folder.record()["certificates"]:
        one["settings"]["axes"][0]["at"] += 10


KINDS: dict[str, Forgery] = {
    # Settings
    "reach of a setting larger": Forgery("settings", setting("reach", lambda r: r * 1.01), FILES),
    "reach of a factor larger": Forgery("settings", setting("reach", lambda r: r * 1.01, axis=1), FILES),
    "reach of a setting smaller": Forgery("settings", setting("reach", lambda r: r * 0.9), FILES),
    "scale of a setting": Forgery("settings", setting("scale", 60.0), FILES),
    "scale of a setting everywhere": Forgery("settings", rescaled, REDRAW),
    "unit of a setting": Forgery("settings", setting("unit", "HU"), FILES),
    "a setting that adds called a factor": Forgery("settings", setting("how", "multiplied"), FILES),
    "a setting's name": Forgery("settings", setting("name", "offset"), FILES),
    "a setting's own value on one certificate": Forgery("settings", setting("at", 3.0), FILES),
    "a setting's own value on all of an image": Forgery("settings", reference_moved, REDRAW),
    "settings left out": Forgery("settings", lambda f: proved(f).pop("settings") and None, FILES),
    "settings on a certificate of pixels": Forgery(
        "grid", lambda f: proved(f).update(settings={"axes": [], "image": [1, 4, 4]}), FILES
    ),
    "settings called pixels everywhere": Forgery(
        "settings", everywhere("space", value="native", request=("request", "space")), FILES
    ),
    "image of the masks of settings": Forgery(
        "masks of settings", lambda f: f.certificate()["settings"].update(image=[1, 4, 5]), FILES
    ),
    # What is claimed
    "radius larger": Forgery("grid", place("claim", lambda r: r * 1.001, "radius"), FILES),
    "radius larger by one unit in the last place": Forgery("grid", ulp_up, REDRAW),
    "radius smaller": Forgery("grid", place("claim", lambda r: r * 0.9, "radius"), FILES),
    "p_lower larger": Forgery("grid", place("claim", lambda p: p + 0.003, "p_lower"), FILES),
    "p_lower smaller": Forgery("looks", place("claim", lambda p: p - 0.003, "p_lower"), FILES),
    "q_upper smaller": Forgery("looks", place("claim", lambda q: q * 0.9, "q_upper"), FILES),
    "abstention turned into a claim": Forgery("grid", place("claim", False, "abstained", of=abstained), FILES),
    "claim turned into an abstention": Forgery("grid", place("claim", True, "abstained"), FILES),
    "prediction changed": Forgery("grid", place("claim", lambda p: 1 - p, "prediction"), FILES),
    "bound relabelled": Forgery("looks", place("claim", "two-sided", "bound"), FILES),
    "counts at the end": Forgery("grid", place("claim", lambda c: [c[0] + 9, c[1] - 9], "counts"), FILES),
    "selection counts turned round": Forgery("grid", place("claim", lambda c: c[::-1], "selection"), FILES),
    "a lost bet won": Forgery("bet", bet_lost, FILES),
    # Looks
    "proved_at with counts made up": Forgery("grid", first_look_claims_all, FILES),
    "proved_at moved to the first look": Forgery("looks", place("samples", 0, "proved_at", of=abstained), FILES),
    "proved_at beyond the looks": Forgery("grid", place("samples", 99, "proved_at"), FILES),
    "a look's agreeing count too large for the next": Forgery("grid", look(0, 1, 5), FILES),
    "a look's counts that chance does not give": Forgery("grid", lucky_first_look, FILES),
    "a look's size": Forgery("grid", look(0, 0, 32), FILES),
    "a look's rival": Forgery("grid", look(-1, 2, 3), FILES),
    "a look left out": Forgery("grid", place("samples", lambda found: found[1:], "looks"), FILES),
    "a look added": Forgery("grid", place("samples", lambda found: [*found, found[-1]], "looks"), FILES),
    "the last look's count": Forgery("grid", look(-1, 1, 1), FILES),
    # Stops, budgets, sizes
    "stop: at the cap": Forgery("grid", place("samples", "cap reached", "stop", "kind"), FILES),
    "stop: above a larger radius": Forgery("grid", place("samples", 1.0, "stop", "above"), FILES),
    "stop: next radius skipped": Forgery("grid", place("samples", 2.5, "stop", "below"), FILES),
    "stop: interrupted": Forgery("grid", place("samples", {"kind": "interrupted"}, "stop"), FILES),
    "stop: planned from another count": Forgery(
        "planned", place("samples", lambda k: k - 3, "stop", "agreeing", of=lambda f: proved(f, looks=1)), FILES
    ),
    "budget of one certificate respelt": Forgery("grid", place("samples", "grid@5000", "budget"), FILES),
    "budget respelt everywhere: one look": Forgery("grid", respelt("fixed:2000"), FILES),
    "budget respelt everywhere: another cap": Forgery("grid", respelt("grid@4000"), FILES),
    "budget respelt everywhere: other radii": Forgery("grid", respelt("grid:0.0,0.15@2000"), FILES),
    "planned budget: another loss": Forgery("planned", respelt("planned:0.5@2000"), FILES),
    "n0 of one certificate": Forgery("grid", place("samples", 100, "n0"), FILES),
    "n0 everywhere": Forgery("grid", everywhere("samples", "n0", value=100, request=("request", "n0")), FILES),
    "n of one certificate": Forgery("grid", place("samples", lambda n: n + 1, "n"), FILES),
    # Failure probability
    "alpha of one certificate": Forgery("grid", place("alpha", 1e-5, "level"), FILES),
    "alpha everywhere": Forgery("grid", alpha_everywhere, FILES),
    "share of alpha relabelled": Forgery("grid", share_of_methods, FILES),
    "share of alpha of a tau not split": Forgery(
        "masks", place("alpha", 0.001, "level", of=lambda f: f.certificate()), FILES
    ),
    # Scope, choice, methods
    "scope of one certificate": Forgery(
        "grid", place("", "end-to-end", "scope", of=lambda f: proved(f, "tuned", 1)), FILES
    ),
    "scope everywhere, under another name": Forgery("grid", renamed_method, FILES),
    "LoRA tuned at the image called end-to-end": Forgery("grid", as_test_time_lora, FILES),
    "an adapted model without its adapter": Forgery("grid", as_adapted(None), FILES),
    "the adapter's digest as the model's": Forgery("grid", as_adapted("c" * 64), FILES),
    "an adapter that nobody has": Forgery("grid", as_adapted("b" * 64), REDRAW),
    "an adapter given to the plain model": Forgery(
        "grid", lambda folder: folder.manifest["methods"][0].update(adapter="b" * 64), FILES
    ),
    "kind of a method relabelled everywhere": Forgery("grid", kind_relabelled, REDRAW),
    "chosen_from emptied": Forgery("grid", chosen_emptied, FILES),
    "chosen among methods, called end-to-end": Forgery("grid", chosen_end_to_end, FILES),
    "method of a certificate": Forgery("grid", place("", "tuned", "method"), FILES),
    "views of a method without": Forgery("grid", place("", [0.354, 0.354], "views"), FILES),
    # Noise
    "sigma of one certificate": Forgery("grid", place("law", 0.5, "sigma"), FILES),
    "sigma everywhere": Forgery("grid", everywhere("law", "sigma", value=0.5, request=("request", "sigma")), FILES),
    "law of one certificate": Forgery(
        "float32", place("", {"name": "gaussian-grid", "sigma": 0.25, "k": 257}, "law"), FILES
    ),
    "law everywhere, placements as they were": Forgery("float32", drift_denied, FILES),
    "law everywhere, placements too": Forgery("float32", law_everywhere, REDRAW),
    "step of the grid everywhere": Forgery("grid", everywhere("law", "k", value=4096), FILES),
    "slack of the grid zeroed": Forgery("grid", place("placement", 0.0, "slack"), FILES),
    "rounding of the image zeroed": Forgery("grid", place("placement", 0.0, "rounding"), FILES),
    "seed of one certificate": Forgery("grid", place("", 99, "seed"), FILES),
    "seed relabelled everywhere": Forgery("grid", seed_everywhere, REDRAW),
    "item of one certificate": Forgery("grid", place("", "5.png", "item"), FILES),
    # Native radius, space, shape
    "native radius larger": Forgery("grid", place("native", lambda r: r * 1.01, "radius"), FILES),
    "native norm smaller": Forgery("grid", place("native", lambda r: r * 0.9, "norm"), FILES),
    "geometry of one certificate": Forgery("grid", place("native", 3, "geometry", "depth"), FILES),
    "geometry of a weaker preparation": Forgery("grid", weaker_preparation, REDRAW),
    "native radius taken from one method": Forgery("grid", place("", None, "native"), FILES),
    "space relabelled": Forgery("grid", everywhere("space", value="native", request=("request", "space")), FILES),
    "shape of one certificate": Forgery("grid", place("", [1, 4, 5], "shape"), FILES),
    # Whole records
    "counts invented, everything else recomputed": Forgery("grid", lambda f: void(invented(f)), REDRAW),
    "counts of a bound of two sides invented": Forgery("looks", lambda f: void(invented(f)), REDRAW),
    "candidate chosen on the estimation samples": Forgery("grid", chosen_on_estimation, REDRAW),
    "label outside the classes": Forgery("grid", record("label", 7), FILES),
    "label changed": Forgery("grid", record("label", lambda label: 1 - label), REDRAW),
    "group changed": Forgery("grid", record("group", "another patient"), REDRAW),
    "intensity of the file changed": Forgery("grid", record("intensity", {"scale": 1}), REDRAW),
    "a place in the patient that is no map": Forgery(
        "grid", record("place", {"affine": [[0.0] * 4] * 3 + [[0, 0, 0, 1]], "shape": [6, 8], "source": "nifti"}), FILES
    ),
    "a place in the patient of another image": Forgery(
        "grid", record("place", {"affine": np.eye(4).tolist(), "shape": [6, 8, 3], "source": "nifti"}), FILES
    ),
    "a place in the patient invented": Forgery(
        "grid", record("place", {"affine": np.eye(4).tolist(), "shape": [6, 8], "source": "nifti"}), REDRAW
    ),
    "clean prediction changed": Forgery(
        "grid", record("clean", lambda found: found | {"plain": 1 - found["plain"]}), REDRAW
    ),
    "clean prediction outside the classes": Forgery("grid", record("clean", lambda found: found | {"plain": 7}), FILES),
    "clean prediction of no method": Forgery("grid", record("clean", {}), FILES),
    "a certificate left out": Forgery("grid", record("certificates", lambda found: found[:1]), FILES),
    "a certificate twice": Forgery("grid", record("certificates", lambda found: [found[0], found[0]]), FILES),
    "an image dropped, with count and ids": Forgery("grid", dropped, REDRAW),
    "an image dropped, no more": Forgery("grid", lambda f: f.records.pop(0) and None, FILES),
    "an image replaced by a better one": Forgery("grid", replaced, REDRAW),
    "an image added": Forgery("grid", new_image, REDRAW),
    "a failed image left out": Forgery("grid", without_failure, REDRAW),
    "a certified image called failed": Forgery("grid", failed, REDRAW),
    "a failed image certified": Forgery("grid", mended, REDRAW),
    "a failed image with a clean prediction": Forgery("grid", record("clean", {"plain": 1}, BROKEN), FILES),
    "a failure without a reason": Forgery("grid", record("reason", None, BROKEN), FILES),
    "a reason without a failure": Forgery("grid", record("reason", "it looked odd"), FILES),
    "half the images, called a shard": Forgery("grid", half_a_shard, REDRAW),
    "a shard of a size that is not dealt": Forgery("grid", odd_shard, FILES),
    # Circumstances
    "pixels digest of one image": Forgery(
        "grid", lambda f: [c["provenance"].update(pixels="f" * 64) for c in f.record()["certificates"]] and None, REDRAW
    ),
    "pixels digest of one certificate": Forgery("grid", place("provenance", "f" * 64, "pixels"), FILES),
    "decoder of one image": Forgery("grid", place("provenance", {"Pillow": "1.0"}, "decoders"), FILES),
    "decoder everywhere": Forgery("grid", everywhere("provenance", "decoders", value={"Pillow": "1.0"}), CIRCUMSTANCES),
    "version of one certificate": Forgery("grid", place("provenance", "9.9", "versions", "torch"), FILES),
    "version everywhere": Forgery("grid", versions_everywhere, CIRCUMSTANCES),
    "dtype of one certificate": Forgery("grid", place("provenance", "bfloat16", "dtype"), FILES),
    "engine of one certificate": Forgery("grid", place("provenance", "float32 in openvino", "dtype"), FILES),
    "engine in the request alone": Forgery("grid", engine_in_the_request, FILES),
    "dtype everywhere but in the request": Forgery("grid", everywhere("provenance", "dtype", value="bfloat16"), FILES),
    "dtype everywhere": Forgery("grid", dtype_everywhere, CIRCUMSTANCES),
    "device of one certificate": Forgery("grid", place("provenance", "cuda:0", "device"), FILES),
    "device everywhere": Forgery("grid", device_everywhere, CIRCUMSTANCES),
    "batch size": Forgery("grid", manifest("local", "batch_size", value=1024), CIRCUMSTANCES),
    "certimed's version in the manifest": Forgery("grid", manifest("certimed", value="9.9"), CIRCUMSTANCES),
    "model of one certificate": Forgery("grid", place("provenance", "e" * 64, "model"), FILES),
    "model everywhere": Forgery("grid", model_everywhere, REDRAW),
    "data set's identity": Forgery("grid", manifest("data", "identity", value="e" * 64), REDRAW),
    "classes renamed": Forgery("grid", manifest("classes", value=["benign", "malignant"]), REDRAW),
    "classes permuted": Forgery("grid", manifest("classes", value=["light", "dark"]), REDRAW),
    "a class added": Forgery("grid", manifest("classes", value=["dark", "light", "grey"]), FILES),
    "denoiser claimed": Forgery("grid", manifest("denoiser", value="e" * 64), REDRAW),
    # Masks
    "threshold lowered, pixels and look with it": Forgery("masks", threshold_lowered, FILES),
    "threshold of an earlier look": Forgery("masks", look(0, 1, 1, of=lambda f: f.certificate()), REDRAW),
    "threshold of an earlier look, impossible": Forgery(
        "masks",
        place("samples", lambda found: [[found[0][0], 20], *found[1:]], "looks", of=lambda f: f.certificate()),
        FILES,
    ),
    "certified layer": Forgery("masks", layer("certified", np.logical_not, digest=False), FILES),
    "agreement raised": Forgery("masks", layer("agreement", lambda a: a + (a < a.max())), FILES),
    "classes of pixels changed": Forgery("masks", layer("mask", lambda m: 1 - m), REDRAW),
    "arrays of two images swapped": Forgery("masks", swapped_arrays, FILES),
    "all of two images swapped": Forgery("masks", swapped_images, REDRAW),
    "certified layers of two taus swapped": Forgery("masks", swapped_taus, FILES),
    "tau everywhere": Forgery("fixed masks", tau_everywhere, FILES),
    "correction relabelled": Forgery("masks", everywhere("claim", "correction", value="bonferroni"), FILES),
    "share of pixels": Forgery("masks", place("claim", 1.0, "share_certified", of=lambda f: f.certificate()), FILES),
    "undecided pixels": Forgery(
        "masks", place("samples", lambda count: count + 3, "stop", "undecided", of=lambda f: f.certificate()), FILES
    ),
    "a tau's certificate left out": Forgery("masks", record("certificates", lambda found: found[:1]), FILES),
    "scores above one": Forgery(
        "masks",
        lambda f: [s["whole"].update({"certified accuracy": 1.5}) for s in f.record()["scores"].values()] and None,
        FILES,
    ),
    "scores raised": Forgery("masks", scores_raised, REDRAW),
    # Nothing catches these
    "one count of one image, within near ties": Forgery(
        "grid",
        one_count,
        NOTHING + "so few counts may move between two honest draws, and the claim must follow from them",
    ),
    "date of the run": Forgery(
        "grid",
        manifest("created", value="2020-01-01T00:00:00+00:00"),
        NOTHING + "no clock is trusted; note the digest on the day",
    ),
    "name of the model": Forgery(
        "grid", manifest("model", "name", value="a better one"), NOTHING + "a name; the identity is what counts"
    ),
    "name of the processor": Forgery(
        "grid", place("provenance", "a better one", "device_name"), NOTHING + "it decides no result"
    ),
    "words of a failure": Forgery(
        "grid",
        record("reason", "it was fine", BROKEN),
        NOTHING + "words differ between versions; that it fails again is checked",
    ),
}


def void(_: object) -> None:
    """Edits return nothing."""


def dump(folder: Folder) -> str:
    """All that a forgery could have changed, for a test that it changed something."""
    arrays = {str(path): path.read_bytes().hex() for path in sorted((folder.path / "arrays").iterdir())}
    return json.dumps([folder.manifest, folder.records, arrays], default=str)
