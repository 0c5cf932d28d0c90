"""Speakers of public corpora and of common exports, with the role that each has.

A row is a corpus, the speakers of a dialogue in order, and those that are the assistant; the others
are users, or the system. The names are those of the corpora's own descriptions; the order of turns
is typical. Rows of the second half were not looked at when the words and rules were chosen.
"""

from __future__ import annotations

from typing import NamedTuple


class SpeakerSet(NamedTuple):
    """A corpus with the speakers of one dialogue."""

    corpus: str
    speakers: tuple[str, ...]
    assistants: frozenset[str]


_TUNED = """
MultiWOZ                 | USER SYSTEM USER SYSTEM                       | SYSTEM
Taskmaster-1             | USER ASSISTANT USER ASSISTANT                 | ASSISTANT
ABCD                     | agent customer agent customer                 | agent
CaSiNo                   | mturk_agent_1 mturk_agent_2 mturk_agent_1 mturk_agent_2 | mturk_agent_2
EmpatheticDialogues      | speaker listener speaker listener             | listener
Wizard of Wikipedia      | 0_Apprentice 1_Wizard 0_Apprentice 1_Wizard   | 1_Wizard
Topical-Chat             | agent_1 agent_2 agent_1 agent_2               | agent_2
Persona-Chat             | person_1 person_2 person_1 person_2           | person_2
Ubuntu (two names)       | zenith bronson zenith bronson                 | bronson
DSTC8 SGD                | USER SYSTEM USER SYSTEM USER SYSTEM           | SYSTEM
MetaLWOz                 | bot user bot user                             | bot
CCPE-M                   | ASSISTANT USER ASSISTANT USER                 | ASSISTANT
Coached preferences      | ASSISTANT USER ASSISTANT USER ASSISTANT       | ASSISTANT
KETOD                    | user system user system                       | system
MedDialog                | Patient Doctor Patient Doctor                 | Doctor
ESConv                   | seeker supporter seeker supporter             | supporter
PersuasionForGood        | ER EE ER EE                                   | EE
ShareGPT                 | human gpt human gpt                           | gpt
WildChat                 | user assistant user assistant                 | assistant
OASST                    | prompter assistant prompter assistant         | assistant
Bing logs                | user bing user bing                           | bing
Anthropic HH             | Human Assistant Human Assistant               | Assistant
Telegram export          | Ada Ben Ada Ben Ada                           | Ben
Support desk, German     | Kunde Mitarbeiter Kunde Mitarbeiter           | Mitarbeiter
Support desk, French     | client conseiller client conseiller           | conseiller
JDDC                     | 用户 客服 用户 客服                           | 客服
Clinic, Korean           | 환자 의사 환자 의사                           | 의사
Call centre, Japanese    | オペレーター お客様 オペレーター お客様       | オペレーター
Character chats          | User Zed User Zed                             | Zed
Play with narrator       | Narrator guest waiter guest waiter            | waiter
Numbers                  | 0 1 0 1                                       | 1
Letters                  | A B A B                                       | B
DailyDialog letters      | A B A B A                                     | B
Tutoring                 | teacher student teacher student               | teacher
Interview bot            | bot candidate bot candidate                   | bot
"""
_HELD_OUT = """
Taskmaster-3             | user assistant user assistant                 | assistant
Frames                   | user wizard user wizard                       | wizard
CrossWOZ                 | usr sys usr sys                               | sys
RiSAWOZ                  | user system user system                       | system
AirDialogue              | customer agent customer agent                 | agent
DealOrNoDeal             | YOU THEM YOU THEM                             | THEM
CraigslistBargain        | buyer seller buyer seller                     | seller
DoQA                     | questioner answerer questioner answerer       | answerer
QuAC                     | student teacher student teacher               | teacher
CoQA                     | questioner answerer questioner answerer       | answerer
MANtIS                   | user agent user agent                         | agent
MSDialog                 | User Agent User Agent                         | Agent
INSPIRED                 | RECOMMENDER SEEKER RECOMMENDER SEEKER         | RECOMMENDER
ReDial                   | initiator respondent initiator respondent     | respondent
OpenDialKG               | user assistant user assistant                 | assistant
Blended Skill Talk       | Guided Free Guided Free                       | Free
Multi-Session Chat       | Speaker 1#Speaker 2#Speaker 1#Speaker 2       | Speaker 2
Wizard of Internet       | Apprentice Wizard Apprentice Wizard           | Wizard
LIGHT                    | king servant king servant                     | servant
SODA                     | Madeleine Coach Madeleine Coach               | Coach
ProsocialDialog          | user bot user bot                             | bot
Prosocial letters        | speaker_a speaker_b speaker_a speaker_b       | speaker_b
AnnoMI                   | therapist client therapist client             | therapist
HOPE counselling         | T P T P                                       | T
DAIC interviews          | Ellie Participant Ellie Participant           | Ellie
Kvret                    | driver assistant driver assistant             | assistant
STAR                     | User Wizard User Wizard                       | Wizard
BiTOD                    | User System User System                       | System
NatCS                    | Customer Agent Customer Agent                 | Agent
TweetSumm                | customer brand customer brand                 | brand
Clinic visits            | DOCTOR PATIENT DOCTOR PATIENT                 | DOCTOR
MTS-Dialog               | Doctor Patient Guest_family Doctor            | Doctor
Friends                  | Ross Rachel Ross Rachel                       | Rachel
Ubuntu channel           | ana bo cy ana bo cy bo                        | bo
Bitext                   | instruction response instruction response     | response
Gemini API               | user model user model                         | model
Llama logs               | User Llama User Llama                         | Llama
Zendesk                  | end-user agent end-user agent                 | agent
Intercom                 | lead operator lead operator                   | operator
LiveChat                 | visitor agent visitor agent                   | agent
Bank, Spanish            | cliente asesor cliente asesor                 | asesor
Clinic, Portuguese       | paciente médico paciente médico               | médico
Shop, Italian            | cliente commesso cliente commesso             | commesso
Bank, Russian            | клиент оператор клиент оператор               | оператор
Shop, Turkish            | müşteri temsilci müşteri temsilci             | temsilci
Help, Polish             | klient konsultant klient konsultant           | konsultant
Help, Dutch              | klant medewerker klant medewerker             | medewerker
Help, Arabic             | عميل موظف عميل موظف                           | موظف
Help, Hindi              | ग्राहक एजेंट ग्राहक एजेंट                     | एजेंट
Doctor, Chinese          | 患者 医生 患者 医生                           | 医生
Shop, Korean             | 고객 상담원 고객 상담원                       | 상담원
Emotional, Chinese       | 求助者 支持者 求助者 支持者                   | 支持者
Bot of a shop            | ShopBot Alice ShopBot Alice                   | ShopBot
Discord with a bot       | kim HelperBot lee HelperBot                   | HelperBot
Reddit                   | OP commenter OP commenter                     | commenter
911 calls                | dispatcher caller dispatcher caller           | dispatcher
Court                    | lawyer witness lawyer witness                 | witness
System first             | system human chatgpt human chatgpt            | chatgpt
Hotel desk               | guest front_desk guest front_desk             | front_desk
Prefix names             | spk_customer spk_agent spk_customer spk_agent | spk_agent
"""


def _rows(table: str) -> list[SpeakerSet]:
    rows = []
    for line in table.strip().splitlines():
        corpus, speakers, assistants = (part.strip() for part in line.split("|"))
        names = speakers.split("#") if "#" in speakers else speakers.split()
        answering = [assistants] if "#" in speakers else assistants.split()
        rows.append(SpeakerSet(corpus, tuple(names), frozenset(answering)))
    return rows


TUNED, HELD_OUT = _rows(_TUNED), _rows(_HELD_OUT)
