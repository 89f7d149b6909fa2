"""The map of the explorer page: functions that read its canvases and move the mouse on it."""

import pytest
import torch
from browsing import find, floats, visible
from selenium.webdriver.common.actions.action_builder import ActionBuilder

# The pixels of a canvas of the map, four bytes each.
PIXELS = """const pixels = id => {
      const canvas = document.getElementById(id), { width, height } = canvas;
      const fast = { willReadFrequently: true };
      const copy = new OffscreenCanvas(width, height).getContext("2d", fast);
      copy.drawImage(canvas, 0, 0);
      return copy.getImageData(0, 0, width, height).data;
    };"""

# The position of the cross, in pixels from the left and the top. Each of its two lines is a peak of
# its colour in at most two columns or rows.
CROSS = """const cross = ([red, green, blue]) => {
      const data = pixels("cross"), side = document.getElementById("cross").width;
      const totals = [new Float64Array(side), new Float64Array(side)];
      for (let y = 0, i = 0; y < side; y++)
        for (let x = 0; x < side; x++, i += 4) {
          const apart = [data[i] - red, data[i + 1] - green, data[i + 2] - blue].map(Math.abs);
          if (Math.max(...apart) > 40) continue;
          totals[0][x] += data[i + 3];
          totals[1][y] += data[i + 3];
        }
      return totals.map(total => {
        const peak = total.indexOf(Math.max(...total));
        const near = [peak - 1, peak, peak + 1].filter(i => i in total);
        const weight = near.reduce((sum, i) => sum + total[i], 0);
        return near.reduce((sum, i) => sum + total[i] * (i + 0.5), 0) / weight;
      });
    };"""


class Map:
    """The map, with the positions of its points on the screen."""

    def __init__(self, page):
        self.page = page
        plane = page.execute_script("return content.plane")
        self.origin = floats(plane["origin"])
        self.directions = torch.stack([*map(floats, plane["directions"])])
        self.points = floats(plane["points"]).view(-1, 2)
        self.labels = plane["labels"]
        self.measure()

    def measure(self):
        """Fit how a point (u, v) of the plane becomes a position (x, y) in CSS pixels.

        The fit uses the cross at the posterior means of five images.
        """
        here = visible(self.page, find(self.page, "#cross"))
        self.side = here.size["width"]
        chosen = [0, 25, 50, 75, 99]
        script = f"""{PIXELS} {CROSS}
            return arguments[1].map(i => {{
              document.querySelectorAll("#gallery input")[i].click();
              document.getElementById("to-mean").click();
              return cross(arguments[0]).map(value => value / devicePixelRatio);
            }})"""
        seen = self.page.execute_script(script, self.colour("--accent").tolist(), chosen)
        seen, points, ones = torch.tensor(seen), self.points[chosen], torch.ones(len(chosen), 1)
        (right, x0), (down, y0) = (
            torch.linalg.lstsq(torch.cat([points[:, [k]], ones], 1), seen[:, k]).solution
            for k in (0, 1)
        )
        assert right > 0
        assert down.item() == pytest.approx(-right.item(), rel=0.02)  # Both axes have one scale.
        self.scale, self.zero = right.item(), torch.stack([x0, y0])
        torch.testing.assert_close(self.places[chosen], seen, rtol=0, atol=1)

    @property
    def places(self):
        """The positions of the test images' points, (1000, 2) in CSS pixels from the top left."""
        return self.zero + self.points * self.scale * torch.tensor([1, -1])

    def cross(self):
        """The position of the cross, in CSS pixels from the top left."""
        script = f"""{PIXELS} {CROSS}
            return cross(arguments[0]).map(value => value / devicePixelRatio)"""
        return self.page.execute_script(script, self.colour("--accent").tolist())

    def seen(self, canvas):
        """The pixels of a canvas of the map, (height, width, 4), 0 to 255."""
        script = f"""{PIXELS}
            let text = "";
            for (const value of pixels(arguments[0])) text += String.fromCharCode(value);
            return btoa(text);"""
        pixels = floats(self.page.execute_script(script, canvas), "u1")
        side = int(len(pixels) ** 0.5 / 2)
        return pixels.view(side, side, 4).long()

    def seen_at(self, canvas, places):
        """The pixels (n, 4) at positions on a canvas of the map, 0 to 255."""
        script = f"""{PIXELS}
            const data = pixels(arguments[0]), {{ width }} = document.getElementById(arguments[0]);
            return arguments[1].map(place => {{
              const [x, y] = place.map(value => Math.floor(value * devicePixelRatio));
              return Array.from(data.subarray(4 * (y * width + x), 4 * (y * width + x) + 4));
            }});"""
        return torch.tensor(self.page.execute_script(script, canvas, places.tolist()))

    def colour(self, name):
        """A colour (3,) of the page's style, by its name."""
        text = self.page.execute_script(
            "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0])", name
        )
        return torch.tensor([int(text.strip()[i : i + 2], 16) for i in (1, 3, 5)])

    def amount(self, canvas, name):
        """The opacity of a colour in each pixel of a canvas, 0 to 1."""
        pixels = self.seen(canvas)
        like = (pixels[..., :3] - self.colour(name)).abs().amax(-1) < 40
        return pixels[..., 3] / 255 * like

    def lonely(self, gap):
        """The test images whose points are more than `gap` CSS pixels from all others."""
        distances = torch.cdist(self.places, self.places).fill_diagonal_(torch.inf)
        return (distances.min(1).values > gap).nonzero().squeeze(1).tolist()

    def empty_place(self):
        """The position farthest from all points and from the line between the first A and B."""
        grid = torch.cartesian_prod(*[torch.arange(45.0, self.side - 45, 5)] * 2)
        line = torch.lerp(self.places[20], self.places[70], torch.linspace(0, 1, 50)[:, None])
        gaps = torch.cdist(grid, torch.cat([self.places, line])).min(1).values
        assert gaps.max() > 12
        return grid[gaps.argmax()]

    def in_window(self, place):
        """Convert a position on the map to one in the window."""
        box = self.page.execute_script(
            "return document.getElementById('cross').getBoundingClientRect()"
        )
        return round(box["x"] + float(place[0])), round(box["y"] + float(place[1]))

    def mouse(self, *places, button=0, release=True):
        """Press a button at the first position, move to the others, and release it."""
        actions = ActionBuilder(self.page, duration=0)
        for i, place in enumerate(places):
            actions.pointer_action.move_to_location(*self.in_window(place))
            if i == 0 and button is not None:
                actions.pointer_action.pointer_down(button)
        if button is not None and release:
            actions.pointer_action.pointer_up(button)
        actions.perform()

    def hover(self, place):
        """Move to a position without pressing a button."""
        self.mouse(place, button=None)
