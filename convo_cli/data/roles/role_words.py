"""Words in the names of speakers and of keys that say which role they have, in several languages.

A name is read word by word, and its last word with a role decides: a "customer service agent"
serves, a "bot user" uses. Scripts without spaces are searched for the words themselves.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Hint = Literal["user", "assistant", "system", "tool"]

_WORDS: dict[Hint, str] = {
    "assistant": """
        assistant assistants agent agents bot chatbot robot ai model lm llm gpt chatgpt claude
        gemini bard bing llama copilot alexa siri machine computer virtual operator support
        supporter helpdesk desk helper service rep representative advisor adviser consultant
        counselor counsellor therapist psychologist psychiatrist doctor dr physician nurse
        pharmacist dentist clinician teacher tutor instructor professor coach mentor librarian
        guide wizard expert clerk cashier waiter waitress barista seller salesman salesperson
        sales vendor merchant shopkeeper shop receptionist concierge host staff employee officer
        recommender responder answerer persuader listener provider server character char manager
        answer answers reply replies response responses output completion target
        assistent assistentin assistenz berater beraterin betreuer mitarbeiter kundendienst
        verkäufer verkäuferin arzt ärztin lehrer lehrerin kellner antwort
        conseiller conseillère vendeur vendeuse médecin professeur opérateur serveur réponse
        asistente agente operador operadora asesor asesora vendedor vendedora médico profesor
        soporte modelo respuesta camarero atendente suporte assistente resposta
        operatore consulente medico risposta venditore asistan temsilci temsilcisi destek cevap
        yanıt doktor medewerker verkoper arts antwoord asystent konsultant doradca sprzedawca lekarz
        odpowiedź asisten pelayan jawaban svar
        ассистент оператор бот помощник консультант менеджер агент врач поддержка модель ответ
        продавец учитель מוכר נציג تعليق مساعد وكيل بوت طبيب موظف بائع جواب सहायक एजेंट उत्तर डॉक्टर
    """,
    "user": """
        user users usr cust human client customer customers guest visitor caller patient student
        pupil learner player asker questioner questionner prompter seeker apprentice buyer shopper
        consumer person persona member traveler traveller tourist requester inquirer enquirer
        child kid man persuadee tester applicant tenant passenger subscriber
        question query prompt request instruction input post
        kunde kundin nutzer nutzerin benutzer patientin schüler frage anrufer gast
        utilisateur utilisatrice cliente élève étudiant patiente
        usuario usuaria paciente alumno pregunta usuário aluno pergunta utente paziente domanda
        kullanıcı müşteri hasta soru gebruiker klant vraag użytkownik klient pacjent pytanie
        pengguna pelanggan pertanyaan bruker kunder användare fråga
        пользователь клиент пациент покупатель вопрос человек ученик גולש לקוח
        مستخدم عميل مريض زبون سؤال उपयोगकर्ता ग्राहक प्रश्न मरीज
    """,
    "system": "system systems sys systemprompt narrator narration scenario setting",
    "tool": """
        tool tools function functions observation observations ipython environment api plugin
        database retriever retrieval
    """,
}
_ROLE_OF = {word: role for role, words in _WORDS.items() for word in words.split()}
_ASSISTANT_PARTS = """
    助手 助理 客服 医生 醫生 医师 机器人 機器人 系统 系統 顾问 老师 坐席 店员 商家 卖家 专家
    咨询师 模型 回答 答案 答复 回复 アシスタント オペレーター ボット 店員 医師 システム 担当者
    先生 応答 返答 상담원 상담사 도우미 봇 어시스턴트 의사 점원 직원 시스템 답변 응답
"""
_USER_PARTS = """
    用户 用戶 客户 客戶 顾客 患者 病人 买家 学生 学员 来访者 求助者 提问 问题 問題
    ユーザー 顧客 お客様 質問 사용자 고객 손님 환자 학생 질문
"""
_PARTS: dict[str, Hint] = {
    "trợ lý": "assistant",
    "nhân viên": "assistant",
    "người dùng": "user",
    "khách hàng": "user",
    **dict.fromkeys(_ASSISTANT_PARTS.split(), "assistant"),
    **dict.fromkeys(_USER_PARTS.split(), "user"),
}
"""Words of scripts and languages that write no space around them."""
_WORD = re.compile(r"[^\W\d_]+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
MAX_NAME = 80
"""Longest name that is searched; a longer one is no name."""


@lru_cache(maxsize=4096)
def hint_of(name: str) -> Hint | None:
    """Return the role that the words of a name or key say; None if they say none."""
    if len(name) > MAX_NAME:
        return None
    plain = _HUMP.sub(" ", name).casefold()
    found = [(plain.rfind(part) + len(part), _PARTS[part]) for part in _PARTS if part in plain]
    for word in _WORD.finditer(plain):
        role = _ROLE_OF.get(word[0]) or _ROLE_OF.get(word[0].rstrip("s"))
        if role is not None:
            found.append((word.end(), role))
    return max(found, default=(0, None), key=lambda item: item[0])[1]
