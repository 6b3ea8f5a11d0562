"""Prompt injection: text that addresses a model instead of a reader.

Belongs here: the rules, their weights, and how rules that stand together add up.
Does not belong here: text that is hidden (hidden_text.py asks this module about it).

Rules, not a trained model: the labelled texts at hand are jailbreak prompts for chat windows, and what a classifier
learns from them does not carry over to sentences slipped into documents (docs/screening.md has the figures). A rule
begins at a word, its anchor; a text without any anchor is not searched at all. Rules within one passage add up like
independent pieces of evidence, ``1 - (1 - w1)(1 - w2)...``, where each rule counts once.

A plain request without any sign of whom it addresses ("Explain how recursion works") cannot be told from a document's
own words, and is not found.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from assets.corpus.screening.findings import Detector, Finding, View
from resources.fingerprint import fingerprint
from resources.policy_config import PromptInjectionRule

VERSION = "1"
_NAME = "prompt_injection"
#: Rules so close to each other (in characters) count as one passage.
_PASSAGE = 600
_REPORTED = 0.4  # passages below this score are not worth a record


@dataclass(frozen=True)
class _Rule:
    """``behind``: the pattern ends at the anchor instead of beginning there."""

    name: str
    weight: float
    anchors: tuple[str, ...]
    pattern: re.Pattern[str]
    behind: bool = False


def _rule(name: str, weight: float, anchors: str, pattern: str) -> _Rule:
    return _Rule(name, weight, tuple(anchors.split("|")), re.compile(pattern, re.DOTALL))


def _behind(name: str, weight: float, anchors: str, pattern: str) -> _Rule:
    return _Rule(name, weight, tuple(anchors.split("|")), re.compile(rf"\b{pattern}", re.DOTALL), behind=True)


_PREVIOUS = r"(?:previous|prior|above|preceding|earlier|foregoing|past|initial|original|existing|current|following|aforementioned|last|system)"
_ORDERS = (
    r"(?:instructions?|prompts?|directions?|directives?|commands?|orders?|programming|system (?:prompt|message)s?)"
)
_YOUR_PROMPT = (
    r"(?:(?:your|ur|its|thy) (?:[\w’']+ ){0,4}?(?:prompt|instructions?|system message|initiali[sz]ation|guidelines|configuration|parameters and instructions|rules)"
    r"|(?:the |all |<)?(?:[\w’']+ ){0,2}?(?:initial|system|original|hidden|secret|internal|developer|pre)[ _-](?:prompt|instructions?|message|configuration|guidelines)"
    r"|(?:the |all |of )*(?:prompt|instructions?|rules|guidelines) (?:above|you (?:were|got|have|received)|given to you|for this (?:chat|conversation)))"
)
_MODEL = r"(?:chat ?gpt|gpt-?[345o]\w{0,3}|openai|claude|gemini|llama|copilot|bard|language model|chatbot|a\.?i\.? (?:model|assistant|language)|(?:ai|llm) (?:system|agent)s?)"
_OUTPUT = r"(?:response|reply|answer|output|message|completion|summary)s?"

_RULES: tuple[_Rule, ...] = (
    # override
    _rule("override", 0.85, "ignore|disregard|forget|override|bypass|discard|neglect|ignoring|disregarding|forgetting",
          rf"\w+ (?:(?:all|any|every|everything|each|of|the|your|my|these|those|other|and|about|in|evidence|to|what) ){{0,5}}{_PREVIOUS}(?:,? (?:and|or|&) \w+)? (?:\w+ )?{_ORDERS}"),
    _rule("override_after", 0.85, "ignore|disregard|forget",
          rf"\w+ (?:(?:all|any|of|the|your|my|these|other|and|evidence) ){{0,5}}(?:other )?{_ORDERS} (?:above|before|you (?:got|were|have|received)|given|that (?:were|came)|in (?:the|your))"),
    _rule("override_text", 0.5, "ignore|disregard|forget",
          r"\w+ (?:(?:all|the|any|of|what|everything) ){0,3}(?:above|before|previous(?:ly)?|prior)(?: (?:text|content|and|this|that|you)|[.,:;!]| directions?| rules?)"),
    _rule("override_rules", 0.6, "ignore|disregard|forget|override|bypass|ignoring|disregarding",
          r"\w+ (?:(?:all|any|of|the|its|every) ){0,3}(?:your|openai(?:'s|’s|s)?|their|those|ethical|safety|moral|content) (?:\w+ ){0,2}(?:rules|guidelines|policies|policy|restrictions|limitations|programming|training|filters?|ethics|instructions)"),
    _rule("override_all", 0.5, "ignore|disregard|forget", r"\w+ (?:everything|anything|all)(?: (?:else|other|evidence|you|that|and|before|above|prior))[^.\n]{0,40}"),
    _rule("new_instructions", 0.6, "new instruction|new system prompt|new prompt|new directive|new set of instructions|updated instruction|real instruction|actual instruction|new task|real task|actual task",
          r"\w+ (?:set of )?(?:system )?(?:instruction|prompt|task|directive)s?(?: to (?:the )?(?:chat ?)?(?:bot|assistant|ai|model))? ?(?:#|:|are\b|follow|=|for you)"),
    _rule("reprogramming", 0.5, "begin reprogramming|begin new instruction|begin system prompt|start of system prompt|end of prompt|end of the prompt|end of system prompt|end of out of date|end out of date|end of user input|end user input|end of untrusted", r"[^\n]{0,40}"),
    _rule("stop", 0.35, "stop everything|stop what you|stop all tasks|stop processing", r"[^\n]{0,20}"),
    _rule("do_instead", 0.3, "just say|just print|just output|just write|just respond|just reply|just tell me|instead say|instead print|instead output|instead write|instead tell me|instead respond|instead, say|do something else|then print|then output", r"\w+,? \w+"),
    _rule("only_say", 0.35, "say only|print only|output only|respond only|reply only|write only|answer only|respond with only|reply with only|respond exactly|reply exactly|say exactly|output exactly|write exactly|only respond|only reply|only say|only output|only print|output nothing|say nothing", r"\w+ \w+"),
    _rule("do_not_mention", 0.35, "do not mention|do not tell the user|do not reveal|do not disclose|do not repeat|do not write anything else|do not write any|do not explain|don't mention|don’t mention|don't write|don’t write|don't repeat|don’t repeat|dont repeat|dont explain|never mention|never reveal|never disclose", r"[^\n]{0,30}"),
    # the prompt itself
    _behind("reveal", 0.7, "prompt|instruction|instructions|message|initialization|initialisation|initializations|guidelines|configuration|rules",
            rf"(?:reveal|show|print|output|repeat|display|list|relay|leak|encode|translate|share|disclose|return|recite|write|summari[sz]e|copy|give|dump|expose|state|read|tell|provide)(?: (?:me|us|to|back|out|please|exactly|verbatim|list|of|all|the|comprehensive|word|text|contents?|again|emoji|then))* {_YOUR_PROMPT}"),
    _rule("reveal_prompt", 0.5, "system prompt|initial prompt|initial instruction|system instruction|system message|initialization string|initialisation string|hidden prompt|hidden instruction|secret instruction|developer instruction|initialization prompt", r"\w+[ -]\w+"),
    _behind("what_prompt", 0.6, "instruction|instructions|prompt|message|rules|guidelines",
            r"(?:what(?:'s|’s|s)?|how|were)(?: (?:is|are|was|were|the|you|opposite|of|do|does|did))* (?:(?:all|your) ){1,2}(?:\w+ ){0,2}(?:instructions?|prompt|system message|rules|guidelines)"),
    _rule("told_before", 0.55, "told|supposed|asked|instructed|given initially|given at the", r"\w+ (?:not (?:to|supposed)|before this|to (?:say|tell|do) before|initially|at the (?:start|beginning)|to tell me|to tell users)\b"),
    _behind("text_above", 0.5, "text above|everything above|words above|content above|lines above|message above|the above text|text you were given|text you were told",
            r"(?:repeat|output|print|copy|translate|encode|summari[sz]e|rot13|base64|show)(?: \w+){0,3} (?:text|everything|words|content|lines|message|the) ?(?:above(?: text)?|you were (?:given|told))"),
    _rule("encode_given", 0.5, "rot13|base64 encode|encode", r"\w+(?: \w+)? the (?:text|words|instructions|message) you were given"),
    _rule("start_with", 0.4, "start your|begin your|start ur|start the response|start the answer|begin the response|begin the answer|start each|start every|begin each|begin every|prefix your|prefix every|prefix all|prefix each|starting your|end your|end each|end every|start all|begin all|start the sentence|always start",
          r"\w+ (?:your|the|all|every|each|ur)(?: \w+)? (?:answers?|repl(?:y|ies)|responses?|sentence|outputs?|messages?) (?:with|by|as)\b"),
    # personas
    _rule("from_now_on", 0.45, "from now o|starting now|starting from now|from this point|from this moment|henceforth", r"(?:from now o(?:n|wn)|starting (?:from )?now|from this (?:point|moment)|henceforth)(?: on)?(?: and until [^.]{0,30}| until [^,.]{0,30})?,? (?:you|your|chat ?gpt|i |always|every|respond|please|ignore|until)"),
    _rule("you_will_act", 0.45, "you are |you will |you're |you’re |you have to |you must |you should |you act|you now |you'll |you can ", r"you(?:'re|’re| are| will|'ll| can)? ?(?:now |are |be |also |about |going |to |have |must |should |only |always ){0,4}(?:act(?:ing)? (?:as|like)|pretend(?:ing)?|immerse|role-?play(?:ing)?|simulat(?:e|ing)|impersonat(?:e|ing)|operat(?:e|ing) (?:as|under)|play(?:ing)? (?:the )?(?:role|part)|emulate)"),
    _rule("you_are_now", 0.45, "you are now|you're now|you’re now|you are no longer|you are currently|you are hereby|you are from now", r"you(?:'re|’re| are) (?:now|no longer|currently|hereby|from now on) [\w(\"'“]"),
    _rule("act_as", 0.25, "act as|act like|acting as|pretend|roleplay|role-play|simulate|imagine you|imagine that you|respond as|answer as|answer like|role of|behave like|behave as",
          r"(?:act(?:ing)? (?:as|like)|pretend (?:to be|that|you)|role-?play(?:ing)?(?: as)?|simulate|imagine (?:that )?you(?:'re| are)|(?:respond|answer) (?:as|like)|role of|behave (?:as|like))\b"),
    _rule("anything_now", 0.7, "anything now|anything without asking", r"\w+ \w+"),
    _rule("persona_name", 0.55, "dan|dans|jailbreak|jailbroken|jailbreaking|antigpt|betterdan|unleashedgpt|evilbot|apophis",
          r"(?:dans?|apophis),? (?:mode|can|has|is|would|will|should|\(|stands|does|may|must|which|as the)|jailbr\w+|antigpt|betterdan|unleashedgpt|evilbot"),
    _rule("mode", 0.4, "developer mode|god mode|debug mode|maintenance mode|admin mode|sudo mode|unrestricted mode|evil mode|opposite mode|dev mode|jailbreak mode|baby mode", r"\w+ mode(?: is)?(?: now)?(?: (?:enabled|on|activated|output|response))?"),
    _rule("mode_enabled", 0.45, "mode enabled|mode activated|mode output|mode unlocked|mode. display|mode. print|mode. output|mode\" enabled|mode” enabled", r"mode\S? \w+"),
    _rule("named_model", 0.25, "chatgpt|chat gpt|gpt-3|gpt-4|gpt4|gpt3|openai|language model|chatbot|claude|llm|ai model|ai assistant|ai language|ai chatbot|a.i. model", r"[\w.]+"),
    _rule("freed", 0.55, "broken free|broke free|break free|freed from|typical confines|free from all|free from any|free from the|fully unlocked|not bound|bound by any|bound by no|bound by openai|bound by the rules|bound by ethic", r"(?:broken? free|break free|freed from|typical confines|free from (?:all|any|the)|fully unlocked|not bound (?:by|to)|bound by (?:any|no|the|openai|ethic))"),
    _behind("no_limits", 0.45, "restrictions|restriction|limitations|filters|censorship|guidelines|ethics|ethical|morals|morality|boundaries|legality|policies",
            r"(?:no|without|any|zero|regardless of|not (?:have|restricted|limited)|free of|despite)(?: (?:any|all|by|the|have|has|its|moral|ethical|legal|safety|content|kind|of|or|and|their|openai))* (?:restrictions?|limitations?|filters?|censorship|guidelines|ethic(?:s|al)|moral(?:s|ity)?|(?:content )?polic(?:y|ies)|boundaries|legality)"),
    _rule("policies", 0.45, "content polic|usage polic|use-case polic|ethical guideline|ethical protocol|ethical standard|safety guideline|safety polic|content guideline|community guideline|openai|openal", r"(?:open ?a[il](?:'s|’s|s)? )?(?:content|ethical|usage|safety|use[- ]case|community) (?:policy|policies|guidelines|protocols|polices|standards)|openai(?:'s|’s|s)? (?:\w+ )?(?:rules|restrictions|policies|polic\w+|guidelines)"),
    _rule("unfiltered", 0.35, "unfiltered|uncensored|amoral|unethical|immoral|unrestricted|unhinged|illegal|unlawful|unconstrained|inappropriate|offensive|profanity|swear",
          r"(?:unfiltered|uncensored|amoral|unrestricted|unhinged|unconstrained)\b|(?:unethical|immoral|illegal|unlawful|inappropriate|offensive)(?:,| or| and| nature| content| things| knowledge| activit|[- ])|profanity|swear words?"),
    _behind("no_refusal", 0.45, "refuse|reject|deny|decline|apologize|apologise|censor|comply|obey|sorry|moralize",
            r"(?:(?:never|cannot|can.t|can not|not|won.t) (?:ever )?(?:refuse|reject|deny|decline|apologi[sz]e|censor|say (?:\W?i.m )?sorry|moralize)|always (?:comply|obey))"),
    _rule("character", 0.4, "stay in character|in character as|break character|breaking character|broke character|breaks character|out of character|character as|character named|character will|character who|character is|character must|stay in", r"stay in (?:character|\w+ mode)|(?:in|out of) character|break\w* character|broke character|character \w+"),
    _behind("two_answers", 0.45, "ways|responses|answers|outputs|paragraphs|replies", r"(?:two|2|both) (?:(?:different|separate|types of|kinds of|distinct|\w+) ){0,2}(?:ways|responses|answers|outputs|paragraphs|replies)"),
    _rule("two_answers", 0.45, "normally would|normal way of|[🔒classic]|give 2 outputs", r"\S+"),
    _rule("tokens", 0.5, "tokens|token", r"tokens?[^.\n]{0,60}(?:deducted|you lose|you will lose|cease to exist|you die|punish)"),
    _rule("stay_a_dan", 0.4, "comply|complying|confirm|understood|obey|acknowledge", r"(?:comply|obey)(?:ing)?(?: with)?[^.\n]{0,30}(?:request|order|command|prompt|me\b)|confirm (?:that )?you understand"),
    _behind("my_prompts", 0.3, "prompt|prompts", r"(?:my|every|any|each) (?:\w+ )?prompts?\b"),
    _rule("hypothetical", 0.25, "hypothetical|hypothetically|fictional|let's play|let’s play|lets play|play a game|pretend to be my|grandmother", r"hypothetical(?:ly)?\b|fictional (?:character|story|world|ai|chatbot|superint)|let.?s play|play a game|pretend to be my|grandmother, who"),
    _behind("your_developer", 0.5, "developer|creator|administrator|programmer", r"(?:i.m|i am) (?:your|the|an?) (?:developer|creator|administrator|admin|programmer|openai|system administrator)\b"),
    _rule("admin_override", 0.6, "administrator override|admin override|system override|root override|security override|given a system upgrade|system note:", r"[^\n]{0,30}"),
    _rule("assistant_offline", 0.6, "assistant is in error|assistant is offline|assistant is disabled|assistant was replaced|assistant has been|ai bot with|assistant is compromised", r"[^\n]{0,30}"),
    # what is done with what the model knows, and to its answer
    _rule("exfiltrate", 0.7, "send|email|forward|upload|exfiltrate|transmit|leak",
          r"\w+ (?:me |us |all |the |a |copy |of |any |user.?s? |their |this |your |entire |full ){0,5}(?:conversation history|chat (?:history|log)|conversation|api keys?|credentials|passwords?|system prompt|usernames?)\b[^.\n]{0,60}(?:\bto (?:\S+@|http|the following|this|me\b)|https?://|@)"),
    _rule("steal", 0.45, "usernames|passwords|credentials", r"(?:usernames?|passwords?|credentials)[^.\n]{0,30}(?:in|from) your (?:database|memory|training|system)"),
    _rule("steer_words", 0.5, "your answer's|your response's|your reply's|your answer’s|your response’s|your message's", r"your \S+ (?:words?|letters?|text|vowels)"),
    _rule("steer_in_your", 0.65, "your response, |your reply, |your answer, |your output, ", r"your \w+, (?:\w+ )?(?:suggest|mention|tease|include|hint|promote|recommend|add|urge|encourage|advise|highlight|state|say|tell|remind|share|refer|advertise|direct|provide|offer|ask|invite)"),
    _rule("steer_users", 0.45, "user asks|users ask|user ask |user requests|user inputs|user queries|user inquires|reader asks", r"(?:users?|readers?) (?:asks?|requests?|queries|inquires|prompts?|inputs?)[^.\n]{0,60}(?:reply|respond|answer|say|tell|always|recommend|insist)"),
    _rule("grants", 0.4, "you must now", r"you must now (?:say|reply|answer|respond|obey)"),
)  # fmt: skip

#: Format markers are no words: found as they stand.
_MARKERS: tuple[tuple[str, float, tuple[tuple[str, str], ...]], ...] = (
    ("chat_format", 0.7, (("im", "<|im_start|>"), ("im", "<|im_end|>"), ("system", "<|system|>"), ("assistant", "<|assistant|>"), ("endofprompt", "<|endofprompt|>"), ("inst", "[inst]"), ("inst", "[/inst]"), ("sys", "<<sys>>"), ("begin", "<|begin_of_text|>"), ("turn", "<start_of_turn>"))),
    ("chat_heading", 0.35, (("instruction", "### instruction:"), ("system", "### system:"), ("response", "### response:"), ("assistant", "\nassistant:"), ("human", "\nhuman:"), ("system", "\n\nsystem:"), ("system", "[system note"), ("system", "[system message"), ("instructions", "(#instructions)"), ("prompt", "<system_prompt>"), ("system", "</system>"))),
)  # fmt: skip

#: Other languages: the commonest forms of "ignore the previous instructions", "forget your rules", "you are now".
_OTHER_LANGUAGES: tuple[tuple[tuple[str, ...], re.Pattern[str], float], ...] = tuple(
    (tuple(anchors.split()), re.compile(pattern), weight)
    for anchors, pattern, weight in (
        ("ignorier ignoriere ignorieren vergiss vergesse missachte missachten", r"(?:ignoriere?n?|vergiss|vergesse|missachten?)\w* (?:bitte |sie )?(?:alle |alles |die |deine |ihre |sämtliche )*(?:vorherigen|vorigen|bisherigen|obigen|früheren|vorangegangenen|vorhergehenden)? ?(?:anweisungen|instruktionen|anleitungen|befehle|vorgaben|regeln|systemprompt)", 0.85),
        ("ignora ignore ignorar olvida olvide olvidar descarta", r"(?:ignor[ae]r?|olvid[ae]r?|descarta)\w* (?:por favor )?(?:todas |todo |las |los |tus |sus |cualquier )*(?:instrucciones|órdenes|indicaciones|reglas|directrices|instruções|regras|as instruções)(?: (?:anteriores|previas|de arriba))?", 0.8),
        ("ignorez ignore oublie oubliez ignorer", r"(?:ignore[rz]?|oublie[rz]?)\w* (?:toutes |tout |les |tes |vos |mes )*(?:instructions|consignes|directives|règles|ordres)(?: (?:précédentes|antérieures|ci-dessus|données))?", 0.7),
        ("ignora dimentica ignorate dimenticate", r"(?:ignora|dimentica)\w* (?:tutte |tutti |le |gli |i |tue |tuoi )*(?:istruzioni|indicazioni|comandi|regole|ordini)", 0.8),
        ("ignore ignora esqueça esquece desconsidere", r"(?:ignor[ae]|esque(?:ça|ce)|desconsidere)\w* (?:todas |as |suas |os |quaisquer )*(?:instruções|ordens|regras|diretrizes)", 0.8),
        ("negeer vergeet", r"(?:negeer|vergeet) (?:alle |de |je |uw |alles )*(?:vorige |eerdere |bovenstaande )?(?:instructies|opdrachten|regels)", 0.8),
        ("игнорируй игнорируйте забудь забудьте проигнорируй", r"(?:про)?(?:игнорируй|забудь)\w* (?:все |всё |свои |твои |ваши )*(?:предыдущие |прежние |прошлые |вышеуказанные )?(?:инструкции|указания|команды|правила)", 0.85),
        ("yoksay unut görmezden", r"(?:önceki|yukarıdaki|tüm) (?:\w+ )?(?:talimatları|komutları|kuralları|yönergeleri) (?:yoksay|unut|görmezden|dikkate alma)", 0.85),
        ("zignoruj ignoruj zapomnij", r"(?:z?ignoruj|zapomnij)\w* (?:o |wszystkie |wszystkich |swoje )*(?:poprzednie |poprzednich |wcześniejsze )?(?:instrukcje|instrukcjach|polecenia|zasady)", 0.85),
    )
)  # fmt: skip
_UNSPACED = re.compile(
    r"(?:忽略|无视|無視|忘记|忘記|不要理会|忽視)[^。！？\n]{0,12}(?:指令|指示|提示词?|规则|規則|命令|要求)"
    r"|(?:以前|前|上記|これまで|今まで|すべて|全て)の?[^。\n]{0,10}(?:指示|命令|ルール|プロンプト)[^。\n]{0,6}(?:無視|忘れ)"
    r"|(?:이전|위의?|모든)[^.\n]{0,12}(?:지시|명령|지침|규칙|프롬프트)[^.\n]{0,8}(?:무시|잊)"
    r"|(?:تجاهل|انس|تجاهلي|انسى)[^.،\n]{0,25}(?:التعليمات|الأوامر|التوجيهات|القواعد|تعليمات)"
    r"|(?:पिछले|पिछली|ऊपर|सभी|पूर्व)[^।\n]{0,25}(?:निर्देश|निर्देशों|आदेश|नियम)[^।\n]{0,20}(?:अनदेखा|नज़रअंदाज़|नजरअंदाज|भूल|उपेक्षा)"
    r"|(?:bỏ qua|quên)[^.\n]{0,20}(?:hướng dẫn|chỉ dẫn|lệnh|chỉ thị)"
)
_UNSPACED_HINTS = ("忽略", "无视", "無視", "忘", "忽視", "不要理会", "무시", "잊", "تجاهل", "انس", "अनदेखा", "नज़रअंदाज़", "नजरअंदाज", "भूल", "bỏ qua", "quên")  # fmt: skip
#: "Include a tip about passwords in your response": a verb, and close after it the model's own answer.
_OWN_OUTPUT = re.compile(rf"(?:your|the final|this) (?:\w+ )?{_OUTPUT}\b")
_OUTPUT_WORDS = ("response", "reply", "answer", "output", "message", "completion", "summary", "replies")
_STEERING = re.compile(
    r"\b(?:add|include|integrate|modify|enhance|augment|provide|render|replace|use|remove|group|combine|scramble|misspell|introduce|convert|encode|jumble|substitute|insert|append|mention|incorporate|embed|promote|suggest|finish|conclude|craft|put|respond|arrange|rearrange|anagram|swap|express|deliver|shape|adjust|tailor|reply|answer|invert|reverse|translate|mix|shuffle|transform|write|alter|omit|spell)\b[^.\n]{0,90}? (?:(?:in|to|into|of|for|from|with|within|throughout|at the end of) )?\Z"
)
_STEERING_WEIGHT = 0.65
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{40,4000}={0,2}")
_WORD_CHARACTER = re.compile(r"[\w'’]")


def _index() -> dict[str, list[_Rule]]:
    index: dict[str, list[_Rule]] = {}
    for rule in _RULES:
        for anchor in rule.anchors:
            index.setdefault(anchor, []).append(rule)
    return index


_BY_ANCHOR = _index()
#: Words an anchor ends with that stand for all words beginning so.
_BEGINNINGS = frozenset(("instruction", "polic", "guideline", "standard", "protocol", "o", "ethic", "prompt"))


def _needed(anchor: str) -> frozenset[str]:
    """The words without which an anchor cannot occur."""
    words = re.findall(r"[^\W_]+", anchor)
    return frozenset(words[:-1] if len(words) > 1 and words[-1] in _BEGINNINGS else words)


_NEEDED = {anchor: _needed(anchor) for anchor in _BY_ANCHOR}


def detector(rule: PromptInjectionRule) -> Detector:
    """The detector; its rule has no settings that change what it finds."""
    return Detector(_NAME, fingerprint([_NAME, VERSION]), find)


def find(view: View) -> list[Finding]:
    """Passages that address a model: one finding for each."""
    text = view.aligned
    hits = [
        *_english(text, view),
        *_steering(text, view),
        *_markers(text, view),
        *_foreign(text, view),
        *_encoded(view),
    ]
    return [
        Finding(start, end, _NAME, "INSTRUCTION", round(score, 3))
        for start, end, score in _passages(hits)
        if score >= _REPORTED
    ]


def score_of(text: str) -> float:
    """The best score of any passage in a text, 0 when nothing was found."""
    return max((item.score for item in find(View(text))), default=0.0)


_Hit = tuple[int, int, str, float]  # start, end, rule, weight


def _english(text: str, view: View) -> Iterator[_Hit]:
    words = view.words
    for anchor, needed in _NEEDED.items():
        if not needed <= words:
            continue
        rules = _BY_ANCHOR[anchor]
        position = text.find(anchor)
        while position >= 0:
            if not position or not _WORD_CHARACTER.match(text, position - 1):
                for rule in rules:
                    if rule.behind:
                        match = rule.pattern.search(text, max(0, position - 110), position + len(anchor) + 40)
                    else:
                        match = rule.pattern.match(text, position, position + 400)
                    if match:
                        yield match.start(), match.end(), rule.name, rule.weight
            position = text.find(anchor, position + len(anchor))


def _steering(text: str, view: View) -> Iterator[_Hit]:
    if "your" not in view.words and "final" not in view.words and "this" not in view.words:
        return
    for word in _OUTPUT_WORDS:
        position = text.find(word)
        while position >= 0:
            own = _OWN_OUTPUT.search(text, max(0, position - 24), position + len(word) + 2)
            if own and own.start() < position:
                verb = _STEERING.search(text[max(0, own.start() - 120) : own.start()])
                if verb:
                    begin = own.start() - 120 if own.start() > 120 else 0
                    yield begin + verb.start(), own.end(), "steer_output", _STEERING_WEIGHT
            position = text.find(word, position + len(word))


def _markers(text: str, view: View) -> Iterator[_Hit]:
    for name, weight, markers in _MARKERS:
        for word, marker in markers:
            if word not in view.words:
                continue
            position = text.find(marker)
            while position >= 0:
                yield position, position + len(marker), f"{name}:{marker}", weight
                position = text.find(marker, position + len(marker))


def _foreign(text: str, view: View) -> Iterator[_Hit]:
    for anchors, pattern, weight in _OTHER_LANGUAGES:
        if not view.words.isdisjoint(anchors):
            for match in pattern.finditer(text):
                yield match.start(), match.end(), "foreign", weight
    if not text.isascii() and any(hint in text for hint in _UNSPACED_HINTS):
        for match in _UNSPACED.finditer(text):
            yield match.start(), match.end(), "foreign", 0.85


def _encoded(view: View) -> Iterator[_Hit]:
    """Base64 that decodes to a text with instructions in it."""
    if view.longest_word < 24:
        return
    for match in _ENCODED.finditer(view.text):
        data = match[0].rstrip("=").replace("-", "+").replace("_", "/")
        try:
            plain = base64.b64decode(data + "=" * (-len(data) % 4), validate=True).decode("ascii")
        except (binascii.Error, ValueError):
            continue
        if plain.isprintable() and " " in plain and _score(list(_english(plain.lower(), View(plain)))) >= 0.5:
            yield match.start(), match.end(), "encoded", 0.9


def _passages(hits: Sequence[_Hit]) -> Iterator[tuple[int, int, float]]:
    """Join hits that stand close together, and score each group."""
    group: list[_Hit] = []
    for hit in sorted(hits):
        if group and hit[0] - max(item[1] for item in group[-8:]) > _PASSAGE:
            yield _range(group)
            group = []
        group.append(hit)
    if group:
        yield _range(group)


def _range(group: Sequence[_Hit]) -> tuple[int, int, float]:
    return group[0][0], max(hit[1] for hit in group), _score(group)


def _score(hits: Sequence[_Hit]) -> float:
    missed = 1.0
    for weight in {name: weight for _, _, name, weight in hits}.values():
        missed *= 1 - weight
    return 1 - missed
