"""Common English words, most common first: what the offline models know about how much a word tells.

Belongs here: the list. Does not belong here: how a rank becomes a weight (offline_models.py).

Ranked by the geometric mean of document frequencies in five unlike kinds of text (encyclopedia, manuals, standards,
chat, news and finance), so that a word counts as common only where it is common everywhere. One word per stem.
"""

_WORDS = """
the to a and in of is that for with this as it on be are an or not from by have can which but at if other all
when one use has any was will there also no using only so more some its new i we would do into what they than
used these then time first where such like about how same two see could does after because should their were
type you up way make been well each between set out however work now many change different most system need both
while may them those example over get following just through here without another value before function number
had include under being still even name possible support case did problem part instead called want result common
state much end based line during must main second right within version program long run data create point might
class code made know since access who available specific process method similar non able very help us standard
why every list current people last our related provide return library reference open rather means error re
either next back due take directly general information file whether own given having your single three known
particular public control yet though order less defined key required level multiple output cannot source
important group already find test start post default good certain found note small give full place again allow
added few free often try user down currently years something large several always until build add space although
shown world making development around net local shows share variable section against simple my best high done
expression figure look additional go size say amount itself later future idea read org write contains too top
self once term string effect never above operating addition named let separate actually associated project check
body security except model power community cause built better language old input text performance reason path
form question thus seen structure present existing least connection real features early useful put home low left
original me per instance else further module total environment private rules field application complete come
final operations considered index therefore special major off keep third http core move true issues lower he
continue package option generally described com necessary release via far range think significant memory pass
four going internal object great fixed fully below tools details ensure determine external previous installed
windows whole along clear block force appropriate implementation said together address design actual complex
none otherwise definition increase location his short upon table kind etc across automatically update copy
little fact status held exactly behavior server command doing channel service network compared enough search
solution entire period expected implement history items pattern limited beginning written equivalent whose
normal usually sometimes basic life among close ever rest step ability position specified correct anyone
individual inside sure sense computer send loop account software become area binary anything day site outside
date active de previously bound failed usage analysis context hold interest al bit strong parameters taken hand
probably elements unless safe content resources million action discussion hard today received almost matter
subject cycle five responsible easy experience target really party difficult live members screen dev constant
apply message advanced specifically proposed turn primary came basis series handle ok properly purpose directory
nothing scope established throughout company extension cost reduce understanding extra potential length random
enable prevent compile global equal got appear request view average management base big drive lot rate track
volume machine act recent corresponding conditions client goes relevant approach format capital prior largest
alternative valid script december syntax failure benefit th center front thought half indicate documentation
independent according print union html avoid suggest everything page policy double pre remove break someone
thing speed enter tried business typically initial role explain simply happens affect flow game stable research
log concept foreign situation believe am components interface taking bring market intended side human
approximately convert forward solve thanks impact hello answer beyond course seems load root financial care
array zero published style match immediately family law involved government combination tell perhaps
respectively remaining collection web united don link decision won legal installation attempt maintain store
away ll argument production exchange depending properties report empty www box cd yes thread efficient american
fine introduced mechanism leave wide safety especially ii article represent distribution middle commercial
sequence domain vector ownership stop play past led moved loss ve words restricted team assuming review record
risk modern compatible title trade late switch co official derived tree id display knowledge lack international
consistent host fair city count europe manually contrast worth terminal algorithm choose custom ch america stage
advantage administration unknown sent native clean giving themselves ignore lib mode quite choice replace six
paid combined impossible national transfer mentioned image office recognized faster cover natural months
extended gave binding device produce branch improve pay minimum bin eventually house maximum bug map plan
council energy win meant thousands science despite ask country accept functional chapter economic president
practice behind description internet central slow entry license port unique raise mail api familiar nor lost
console plus broken became decided university config board wrote rejected et occurs income raw potentially march
steam bottom missing citation person parallel war join light agreement successful stock possibility october src
signal explicitly author events principle resolution integration september yield growth negative receive
population phase expansion split job court nearly whatever indeed var engine quarter beta possibly tax critical
focus character black achieve encoding weak european everyone topic successfully extract study popular st red
media scale explanation upgrade regular os alternate regarding material obtained technology card significantly
took variety execute april estimated generation measure upper guess normally saw century theory alone paper
billion configuration china influence highest corporation precise whenever went finished framework south
slightly north controlled pro investment evolution subsequent chosen november facilities cc relatively wait
warning health qualified wrong declared concrete additionally quality symbol dynamic leading virtual expense
children theoretical hardware john unlike setup modify protocol mathematical latter detected pressure soon sum
essential water caption western social respect resolve lock political rc keyword book identify onto neither en
repository please english construction traditional doc buffer purchased functionality efficiency whereas factor
foundation price historical utility rs distinct instructions opposed runtime contract capacity ultimately land
latest observed multi dependencies characteristics consensus download parent adopted ip told ago annotations
institutions session brought straight complicated hi money division fourth anti struct experimental july
sensitive press supply proper asia anybody bank bar opposite spread head md translation art interactions label
began task graph chinese school computational pool environmental profile industry growing mix physical towards
false inner cell nuclear io africa progress surface partition exit maybe learn recover june stay region txt
mount settlement mass save kernel macro comprehensive effectively child trust east square integer video ready
seven effort identical marked aware sound reduction permanent substantial notice mid document extent calculated
quick percent partially york shift electric cut balance british meet supposed furthermore select lifetime
anywhere talk comments justice military guide arbitrary hope summary invalid reflect january ten machinery color
traits protect deep infrastructure demonstrate fall applicable unable federal debt offers str domestic sales gas
monitor background drop february originally visible online green conflict
"""

#: Changing this list changes every lexical-hash vector: raise ``CODE_VERSION`` in offline_models.py.
COMMON_WORDS: tuple[str, ...] = tuple(_WORDS.split())
