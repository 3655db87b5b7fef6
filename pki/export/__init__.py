"""What other systems read of this hierarchy, byte for byte: one module a system, all pure.

Each takes a `Material`, an authority of that system's own with its key, and gives an `Export`: files, and Kubernetes
manifests where the system reads those. Roots are always a list: during a rotation both the old and the new one are
given. Writing them somewhere is the caller's affair, and so is who may have them.
"""

from __future__ import annotations

from pki.export.material import Export, File, Manifest, Material

__all__ = ["Export", "File", "Manifest", "Material"]
