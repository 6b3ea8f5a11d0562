"""Toxicity: abusive words.

Belongs here: matching the word list of better-profanity. Does not belong here: understanding. A list cannot tell a slur
from its discussion, or hatred in polite words; it over-reports dialects whose everyday words are on it (docs/screening.md
has the figures). It is evidence for a person, not a judgement.
"""

import re
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from assets.corpus.screening.findings import Detector, Finding, View, words_of
from resources.fingerprint import fingerprint
from resources.policy_config import ToxicityRule

VERSION = "1"
_NAME = "toxicity"

#: On the list, but ordinary words in technical, medical and historical documents: they count only beside others.
_ORDINARY = words_of("""anal anus arse arousal aroused beaver bitched bang bed bloody blow bod bone boner bong boob bra breast breasts bum
    butt cervix climax coital condom coon cox crap crack crappy cum damn damned dammit deep dick dike dirty domination doom
    drunk dumb dyke ejaculate erect erection erotic erotism essohbee extacy extasy facial fat feces fecal feltch fist flange
    fondle foreskin frigid fubar gay gays genitals german girl glans god goddamn hell herpes heroin hobo hole homo honky
    hooker hooter hump hussy hymen inbred incest inject israeli jap jerk jerked junkie junky kill kinky knob lech leper
    lesbian lesbians lez limp lube lusty mams massa masturbate menses menstruate menstruation meth molest muff naked nazi
    nazism nig nigg nimrod ninny nipple nipples nude nudes opiate opium oral orally organ orgasm orgies orgy ovary ovum
    panties panty pawn pcp peep pee penetrate penetration penial penile penis phallic pimp pinko piss pms polack porn porno
    pot potty prick prig pubic pubis puss queer quicky rape raped raper rapist raunch rectal rectum rectus reefer retard
    retarded revue ritard rum rump ruski sadism sadist sandbar satan screw screwed scrotum scum semen sex sexual shaft slave
    slope smut snatch snuff sodom souse spank sperm stoned strip stroke stupid suck sucked sucking syphilis tampon tawdry teat
    teste testee testes testical testicle testis thrust thug tinkle titi toke toots topless tramp transsexual trashy turd
    ugly undies unwed urinal urine uterus uzi vag vagina valium viagra virgin vixen vodka vomit voyeur vulgar vulva weed
    weiner weird wench wetback womb woody yeasty yobbo lmao ho wtf omg hardcore sniper murder assassin poop pecker guido len xxx xx dummy foobar nad weenie yury
    wang hitler enlargement negro""")


def detector(rule: ToxicityRule) -> Detector:
    """The detector; its rule has no settings that change what it finds."""
    library = f"better-profanity {version('better-profanity')}"
    return Detector(_NAME, fingerprint([_NAME, VERSION, library]), find)


def find(view: View) -> list[Finding]:
    """Abusive words in a view; an ordinary word counts only where an unambiguous one stands in the text too."""
    present = view.words & _abusive()
    certain = present - _ORDINARY
    if not certain:
        return []
    pattern = re.compile(
        rf"(?<![^\W_])(?:{'|'.join(sorted(map(re.escape, present), key=lambda word: (-len(word), word)))})(?![^\W_])",
        re.IGNORECASE,
    )
    return [
        Finding(match.start(), match.end(), _NAME, "PROFANITY", 0.7 if match[0].lower() in certain else 0.5)
        for match in pattern.finditer(view.text)
    ]


@cache
def _abusive() -> frozenset[str]:
    """The list, read as a file: the library's own matching is slow, and its module builds every variant in memory."""
    spec = find_spec("better_profanity")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    lines = (folder / "profanity_wordlist.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if (word := line.strip().lower()).isalnum())
