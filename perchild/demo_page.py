"""The page of each of the demo's sites: whose it is, and, asked of the server, under whom it was served.

Runs as: whoever runs the demo (pure).
"""

from __future__ import annotations

from collections.abc import Sequence

_HUES = {"alice": 212, "bob": 152, "carol": 28}

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@NAME@</title>
<style>
  :root { color-scheme: light dark; --tone: hsl(@HUE@ 70% 42%); --soft: hsl(@HUE@ 60% 50% / .12); }
  @media (prefers-color-scheme: dark) { :root { --tone: hsl(@HUE@ 75% 68%); } }
  body { font: 1.05rem/1.5 system-ui, sans-serif; max-width: 38rem; margin: 10vh auto; padding: 0 1.2rem; }
  h1 { color: var(--tone); font-size: 2.4rem; margin: 0; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.2rem; background: var(--soft);
       border-left: .3rem solid var(--tone); padding: 1rem 1.2rem; border-radius: .3rem; }
  dt { opacity: .7 } dd { margin: 0; font-variant-numeric: tabular-nums; font-weight: 600 }
  a { color: var(--tone) }
</style>
<h1>@NAME@</h1>
<p>This file belongs to @NAME@, and only @NAME@ may read it. The process that sent it to you:</p>
<dl id="who"><dt>asking</dt><dd>...</dd></dl>
<p>Programs of @NAME@: @PROGRAMS@</p>
<p>The others: <span id="others"></span></p>
<script>
  const rows = [["uid", "uid"], ["gid", "gid"], ["pid", "process"], ["slot", "slot"], ["generation", "generation"],
                ["identity", "identity"], ["came", "connection"], ["host", "host"]];
  const who = document.getElementById("who");
  function put(pairs) {
    who.replaceChildren(...pairs.flatMap(([label, value]) => {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = label; dd.textContent = value;
      return [dt, dd];
    }));
  }
  fetch("/whoami", { headers: { Accept: "application/json" } })
    .then(answer => answer.json())
    .then(said => put(rows.filter(([key]) => key in said).map(([key, label]) => [label, said[key]])))
    .catch(error => put([["no answer", error]]));
  for (const name of @OTHERS@) {
    const link = document.createElement("a");
    link.href = `//${name}.localhost:${location.port}/`;
    link.textContent = name;
    document.getElementById("others").append(link, " ");
  }
</script>
</html>
"""


def render_index(name: str, programs: Sequence[tuple[str, str]]) -> str:
    """Return the index page of the tenant `name` (one of alice, bob, carol) as HTML; `programs`: names and paths of its programs."""
    others = [other for other in _HUES if other != name]
    links = " ".join(f'<a href="{path}">{title}</a>' for title, path in programs) or "none"
    return (_PAGE.replace("@NAME@", name).replace("@HUE@", str(_HUES[name])).replace("@OTHERS@", str(others))
            .replace("@PROGRAMS@", links))
