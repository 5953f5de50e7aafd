"""What can go wrong at the registry, beside a store that cannot be reached."""

from __future__ import annotations

from shoplens.errors import Conflict, Unavailable


class AliasChanged(Conflict):
    """Somebody else changed an alias of this model since it was read."""

    code = "alias_changed"


class AliasUnchanged(Conflict):
    """The alias is where it should go already, or both aliases would be the same version."""

    code = "alias_unchanged"


class NoEarlierChampion(Conflict):
    """A model cannot be rolled back: no other version was its champion before."""

    code = "no_earlier_champion"


class RegistryUnavailable(Unavailable):
    """The registry's server does not answer or refuses."""

    code = "registry_unavailable"
    public_message = "The registry of models cannot be reached. What is live stays live."


class RegistryDamaged(Unavailable):
    """What the registry has of a model cannot be read, or a part of its history is missing."""

    code = "registry_damaged"
    public_message = "What the registry has of this model cannot be read, or a part is missing."
