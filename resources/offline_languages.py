"""Languages of the extractive answerer: what their words tell, and where their sentences end.

Belongs here: cutting text into words that match across inflection, function words, which kind of thing a question asks
for. Does not belong here: choosing an answer (offline_extractive.py), and the lexical-hash vectors (offline_models.py).

English keeps its stemmer and its table of common words (offline_text.py). Of the other languages only function words
are known; words of alphabets count as equal when their first letters are ("truncation", the plainest stemmer there is),
text in Han and kana is read as pairs of characters.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from resources.offline_text import commonness_weight, stem, words

#: A letter only one language has counts as many function words.
_LETTER_VOTES = 2
#: Letters that decide whether two words are the same.
_LETTERS = 5
_LEAST_WEIGHT = 0.05
#: Of a pair of characters of which one is a function word.
_HALF_WEIGHT = 0.3

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_KANA = "\u3041-\u3096\u30a1-\u30fa\u30fc"
#: Letters with the marks that belong to them: Python takes vowel signs for the end of a word.
_MARKED = (
    "\u0300-\u036f\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0971-\u0dff\u0e00-\u0e7f\u200c\u200d"
)
_TOKEN = re.compile(rf"(?:(?![{_HAN}{_KANA}])[^\W_]|[{_MARKED}])+(?:['’](?:[^\W_]|[{_MARKED}])+)?|[{_HAN}{_KANA}]+")
#: A word, or a number with its sign and unit.
_SPAN = re.compile(rf"[€$£]?(?:[^\W_]|[{_MARKED}])+(?:[.,:'’/-](?:[^\W_]|[{_MARKED}])+)*(?:\s?[%°€]C?)?")
_PAIRED = re.compile(rf"[{_HAN}{_KANA}]")
_SCRIPTS = (
    ("zh", re.compile(f"[{_HAN}{_KANA}]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
)
_AL = re.compile("^(?:[وفبكل]?ال|لل|[وف](?=.{3}))")


@dataclass(frozen=True)
class Language:
    """What is known of a language.

    Attributes:
        function: words that tell nothing, lower-cased; of languages without spaces, characters.
        number, time, name, place: patterns of questions that ask for such a thing.
        capitals: whether a capital letter inside a sentence marks a name.
        letters: those that few other languages have.
        small_numbers: numbers written as words; characters where no spaces are set.
        enough: least support of an answer (offline_extractive.py); below it the passages are taken not to hold one.
            English's was chosen on half of SQuAD 2.0: on the other half it refuses with F1 0.85 where the passage with
            the answer is missing, and 0.44 on the unanswerable questions, which are written to share all words with a
            passage that does not answer them; it refuses a quarter of the others. The others were chosen on half of
            XQuAD so that nine in ten questions are refused when the paragraph with the answer is missing; where
            nothing was measured, English's.
    """

    code: str
    function: frozenset[str]
    kinds: tuple[tuple[str, re.Pattern[str]], ...] = ()
    capitals: bool = False
    letters: frozenset[str] = frozenset()
    small_numbers: frozenset[str] = frozenset()
    enough: float = 0.6

    def words(self, text: str) -> list[str]:
        """Lower-cased words in order; pairs of characters where no spaces are set."""
        if self.code == "en":
            return words(text)
        found: list[str] = []
        for token in _TOKEN.findall(text.lower()):
            if _PAIRED.match(token) and len(token) > 1:
                found += [token[at : at + 2] for at in range(len(token) - 1)]
            else:
                found.append(token)
        return found

    def tokens(self, text: str) -> Iterator[re.Match[str]]:
        """Words as they stand in the text."""
        return _SPAN.finditer(text)

    def stem(self, word: str) -> str:
        """The part of a lower-cased word that inflection leaves alone."""
        return stem(word) if self.code == "en" else _short(self.code, word)

    def stems(self, text: str) -> list[str]:
        """Stems of the words of a text, in order."""
        return [self.stem(word) for word in self.words(text)]

    def tells_nothing(self, word: str) -> bool:
        """Whether a word is a function word; a pair of characters is one when both are."""
        return word in self.function or (len(word) == 2 and bool(_PAIRED.match(word)) and set(word) <= self.function)

    def weight(self, stemmed: str) -> float:
        """How much a stem tells, from 0.05 to 1."""
        if self.code == "en":
            return commonness_weight(stemmed)
        if _PAIRED.match(stemmed):
            telling = sum(character not in self.function for character in stemmed)
            return 1.0 if telling == len(stemmed) else _HALF_WEIGHT if telling else _LEAST_WEIGHT
        return _LEAST_WEIGHT if stemmed in _function_stems(self) else 1.0

    def kind(self, text: str) -> str:
        """Which kind of thing a question asks for: number, time, name, place, or nothing in particular."""
        return next((kind for kind, pattern in self.kinds if pattern.search(text.lower())), "")


@lru_cache(maxsize=200_000)
def _short(code: str, word: str) -> str:
    word = word.replace("’", "'").split("'")[0] or word
    if any(map(str.isdigit, word)) or _PAIRED.match(word):
        return word
    if code == "ar":
        bare = re.sub("[\u064b-\u065f\u0670\u0640]", "", word)
        bare = re.sub("[أإآٱ]", "ا", bare)
        cut = _AL.sub("", bare) if len(bare) > 3 else bare
        cut = re.sub("(?:ات|ون|ين|ية|ها|هم|ة|ه|ي)$", "", cut) if len(cut) > 4 else cut
        return cut[:_LETTERS]
    return word[:_LETTERS]


@lru_cache(maxsize=32)
def _function_stems(language: Language) -> frozenset[str]:
    """Stems of function words that are not cut off, so that no longer word is taken for one."""
    return frozenset(language.stem(word) for word in language.function if len(word) <= _LETTERS)


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _kinds(**patterns: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((kind, re.compile(pattern)) for kind, pattern in patterns.items())


ENGLISH = Language("en", frozenset())
#: Function words and question words; the commonest of each language.
LANGUAGES: dict[str, Language] = {
    one.code: one
    for one in (
        Language(
            "de",
            _set(
                "der die das den dem des ein eine einen einem einer eines und oder aber nicht kein keine ist sind war waren wird "
                "werden wurde wurden hat haben hatte hatten ich du er sie es wir ihr mein meine meinen sein seine seiner ihre "
                "ihrer man was wer wen wem wessen wie wo wann warum welche welcher welches welchen welchem wofür womit woran "
                "woher wohin viel viele in im an am auf aus bei beim bis durch für mit nach über um unter von vom vor zu zum zur "
                "als auch dass diese dieser dieses diesem diesen dann da wenn ob so sich noch nur schon sehr kann können muss "
                "müssen soll sollen darf dürfen gibt laut genannt name"
            ),
            _kinds(
                number=r"\bwie ?(?:viele?|hoch|groß|weit|lang|schwer|alt|teuer)\b|\bwelche (?:zahl|anzahl|summe|menge)\b",
                time=r"\bwann\b|\b(?:welche[ms]|welchen) (?:jahr|datum|tag|monat|jahrhundert)|\bwie (?:lange|oft)\b",
            ),
            letters=frozenset("äß"),
            small_numbers=_set("null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf hundert tausend"),
            enough=0.52,
        ),
        Language(
            "es",
            _set(
                "el la los las un una unos unas y o u e pero no es son era eran fue fueron ser ha han había he se su sus lo le "
                "les me mi que qué quién quiénes cuál cuáles cómo dónde cuándo cuánto cuánta cuántos cuántas por para con sin "
                "sobre entre hasta desde en a al de del más menos muy también si como cuando donde este esta estos estas ese "
                "esa eso tiene tienen tuvo puede pueden hay ya nombre llama"
            ),
            _kinds(
                number=r"\bcuánt[oa]s?\b|\bqué (?:número|cantidad|porcentaje)\b",
                time=r"\bcuándo\b|\bqué (?:año|fecha|día|mes|siglo)\b",
                name=r"\bquién(?:es)?\b",
                place=r"\bdónde\b|\bqué (?:ciudad|país|lugar)\b",
            ),
            capitals=True,
            letters=frozenset("ñ¿áíú"),
            small_numbers=_set("cero uno una dos tres cuatro cinco seis siete ocho nueve diez once doce cien mil"),
        ),
        Language(
            "fr",
            _set(
                "le la les un une des du de et ou mais ne pas est sont était étaient été a ont avait ce cet cette ces il elle "
                "ils elles on nous vous je tu son sa ses leur leurs qui que quoi quel quelle quels quelles où quand comment "
                "combien pourquoi dans en à au aux par pour avec sans sur sous entre vers chez plus moins très aussi si comme "
                "se s l d qu y nom"
            ),
            _kinds(
                number=r"\bcombien\b",
                time=r"\bquand\b|\bquelle (?:année|date)\b|\bquel (?:jour|mois|siècle)\b",
                name=r"\bqui\b",
                place=r"\boù\b|\bquel(?:le)? (?:ville|pays|lieu)\b",
            ),
            capitals=True,
            letters=frozenset("èêçœàù"),
            small_numbers=_set("zéro un deux trois quatre cinq six sept huit neuf dix onze douze cent mille"),
        ),
        Language(
            "it",
            _set(
                "il lo la i gli le un uno una e o ma non è sono era erano essere ha hanno aveva si suo sua suoi sue che chi cosa "
                "quale quali come dove quando quanto quanta quanti quante perché di del della dei delle degli dello a al alla "
                "ai alle da dal dalla in nel nella nei nelle con su sul sulla per tra fra più meno molto anche se questo questa"
            ),
            _kinds(
                number=r"\bquant[oaie]\b", time=r"\bquando\b|\bche anno\b|\bquale anno\b", name=r"\bchi\b", place=r"\bdove\b"
            ),
            capitals=True,
            small_numbers=_set("zero uno due tre quattro cinque sei sette otto nove dieci undici dodici cento mille"),
        ),
        Language(
            "pt",
            _set(
                "o a os as um uma uns umas e ou mas não é são era eram foi foram ser tem têm tinha se seu sua seus suas que quem "
                "qual quais como onde quando quanto quanta quantos quantas por para com sem sobre entre até desde em no na nos "
                "nas ao à aos às de do da dos das mais menos muito também este esta esse essa"
            ),
            _kinds(
                number=r"\bquant[oa]s?\b", time=r"\bquando\b|\bque ano\b|\bqual ano\b", name=r"\bquem\b", place=r"\bonde\b"
            ),
            capitals=True,
            letters=frozenset("ãõ"),
            small_numbers=_set("zero um uma dois duas três quatro cinco seis sete oito nove dez onze doze cem mil"),
        ),
        Language(
            "tr",
            _set(
                "ve veya ama bir bu şu o ne kim kimin kime hangi nasıl nerede nereye nereden neden niçin kaç kadar için ile gibi "
                "daha çok en de da ki mi mı mu mü değil var yok olan olarak oldu olduğu tarafından ise her sonra önce göre adı"
            ),
            _kinds(
                number=r"\bkaç\b|\bne kadar\b|\byüzde kaç",
                time=r"\bne zaman\b|\bhangi (?:yıl|tarih|gün|ay)|\bkaç yılında\b",
                name=r"\bkim(?:in|e|i|ler)?\b",
                place=r"\bnere(?:de|ye|den|si)\b|\bhangi (?:şehir|ülke|kent)",
            ),
            capitals=True,
            letters=frozenset("ışğ"),
            small_numbers=_set("sıfır bir iki üç dört beş altı yedi sekiz dokuz on yüz bin"),
            enough=0.5,
        ),
        Language(
            "ru",
            _set(
                "и в во не что кто кого кому чем чему как где когда куда откуда почему зачем какой какая какое какие каком какую "
                "каких каким сколько чей чья на с со к ко по о об от до из у за для при под над между без через а но или если "
                "то это этот эта эти тот та те он она оно они его её их был была было были быть есть является же ли бы так также "
                "более менее самый свой все всех году название"
            ),
            _kinds(
                number=r"\bсколько\b|\bкакое (?:число|количество)\b",
                time=r"\bкогда\b|\bкаком году\b|\bкакой год\b",
                name=r"\bкто\b|\bкого\b|\bкому\b",
                place=r"\bгде\b|\bкаком (?:городе|месте)\b|\bкакой (?:стране|город)\b",
            ),
            capitals=True,
            small_numbers=_set("ноль один одна два две три четыре пять шесть семь восемь девять десять сто тысяча"),
            enough=0.52,
        ),
        Language(
            "ar",
            _set(
                "في من إلى على عن مع هل ما ماذا متى أين كيف كم لماذا أي أية التي الذي الذين اللذان هو هي هم هذا هذه ذلك تلك كان "
                "كانت يكون تكون و أو ثم لا لم لن ليس قد بعد قبل بين عند كل غير أن إن هناك تم هذا اسم منذ حتى"
            ),
            _kinds(
                number=r"\bكم\b|\bما (?:هو )?عدد\b|\bما (?:هي )?(?:نسبة|كمية)\b",
                time=r"\bمتى\b|\bأي (?:عام|سنة|تاريخ|يوم)\b",
            ),
            enough=0.5,
        ),
        Language(
            "hi",
            _set(
                "का के की को में से पर ने और या है हैं था थी थे हो होता होती होते हुआ हुई हुए यह वह ये वे इस उस इन उन एक क्या कौन किस "
                "किसने किसके किसे कहाँ कहां कब कैसे क्यों कितना कितनी कितने कौनसा कौन-सा जो तो भी ही नहीं न कि लिए द्वारा साथ बाद "
                "कर करना करता करते किया किए गया गई गए अपने नाम सी सा"
            ),
            _kinds(number=r"कितन[ाीे]|प्रतिशत", time=r"कब|किस (?:वर्ष|साल|दिन|तारीख|सदी)"),
            enough=0.52,
        ),
        Language(
            "zh",
            frozenset("一的了是在和与或也都就被把对从到于由为以及其这那哪谁什么怎样如何何时多少几吗呢个些有没不之而所并等中上下年月日"),
            _kinds(
                number="多少|几(?![乎])|百分之", time="何时|什么时候|哪一?年|哪一?天|哪个(?:世纪|年|月|日)|什么时间|多久"
            ),
            small_numbers=frozenset("一二三四五六七八九十百千万两零"),
            enough=0.4,
        ),
    )
}  # fmt: skip
_ENGLISH_FUNCTION = _set(
    "the a an of to in on for at by with from and or is are was were be been have has had do does did what which who whom "
    "whose when where why how many much can could should would will may must i my we our you your it its this that there not"
)


def language_of(text: str, code: str | None = None) -> Language:
    """The language of a question, by its script and its function words; English where nothing speaks for another."""
    if code is not None:
        return LANGUAGES.get(code, ENGLISH)
    counts = [(len(pattern.findall(text)), name) for name, pattern in _SCRIPTS]
    most, name = max(counts, key=lambda one: one[0])
    if most * 3 >= sum(map(str.isalpha, text)) > 0:
        return LANGUAGES[name]
    return _of_latin(_TOKEN.findall(text.lower()))


def _of_latin(tokens: Iterable[str]) -> Language:
    found = set(tokens)
    letters = set("".join(found))
    best, most = ENGLISH, len(found & _ENGLISH_FUNCTION)
    for language in LANGUAGES.values():
        count = len(found & language.function) + _LETTER_VOTES * bool(letters & language.letters)
        if count > most:
            best, most = language, count
    return best
