"""Draws the picture that an image order asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtwin.hospital.imaging import NUM_IMAGES, ImageOrder, anatomy_of, noise_of

if TYPE_CHECKING:
    from medtwin.hospital.chest_ct import CtSeries
    from medtwin.hospital.thorax import Radiograph


def draw_picture(order: ImageOrder, seed: int) -> Radiograph | CtSeries:
    """The radiograph or short CT series of an order; depends on the order and the seed only."""
    # scipy.ndimage takes a while to load, and not everyone who reads a record draws a picture.
    from medtwin.hospital.chest_ct import render_ct
    from medtwin.hospital.thorax import render_radiograph

    anatomy = anatomy_of(order, seed)
    noise = noise_of(order, seed)
    if order.modality == "CT":
        return render_ct(anatomy, noise, num_slices=NUM_IMAGES["CT"])
    return render_radiograph(anatomy, noise, view=order.view or "PA")
