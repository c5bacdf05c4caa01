"""Where a worker may be: countries, and areas of several.

Country codes: ISO 3166-1 alpha-2, https://www.iso.org/obp/ui/#search, read 2026-11-24.
"""

from __future__ import annotations

from typing import Final, cast

AREAS: Final = frozenset({"EU", "NA", "APAC"})
"""Areas as users say them. ``NA`` is North America, never Namibia: the area is what is asked for here."""

_CODES: Final = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY
    BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK
    FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR
    IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK
    ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN
    PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG
    TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRIES: Final = frozenset(_CODES.split())
_MEANT: Final = {"UK": "GB", "EL": "GR"}


def region_codes(value: object) -> object:
    """ISO country codes, and the areas EU, NA and APAC, in upper case and one each.

    Raises:
        ValueError: one is neither; says which by its place, never by its text.
    """
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple):
        return value
    out: list[str] = []
    for i, item in enumerate(cast("list[object] | tuple[object, ...]", value)):
        code = item.strip().upper() if isinstance(item, str) else ""
        if code not in AREAS and code not in COUNTRIES:
            meant = f'; did you mean "{_MEANT[code]}"?' if code in _MEANT else ""
            raise ValueError(
                f'item {i + 1} is no ISO country code ("US", "DE") and not one of {", ".join(sorted(AREAS))}{meant}; '
                "a platform's own region ids go into provider_options"
            )
        out.append(code)
    if not out:
        raise ValueError("the list of regions is empty; leave it out for any region")
    return tuple(dict.fromkeys(out))
