"""Phrases that chat programs write in the place of a message, in the languages of their exports."""

from __future__ import annotations

import re

MEDIA, DELETED, CALLS, SYSTEM, NO_TEXT = (
    "media",
    "deleted messages",
    "calls",
    "system lines",
    "no text",
)
"""Reasons for which a message is dropped."""

_OMITTED = (
    "omitted omitido omitida omitidos omitidas ocultado ocultada oculta oculto absent absente "
    "omis omise omesso omessa omessi weggelassen ausgeschlossen weggelaten utelämnad utelatt "
    "udeladt pominięto pominięty pominięta vynecháno пропущено пропущен исключён"
).replace(" ", "|")
_MEDIA_WORDS = (
    "media image photo video audio sticker gif document voice contact imagen foto vídeo imagem "
    "documento figurinha autocollant bild medien dokument afbeelding immagine adesivo вложение"
).replace(" ", "|")
_OMITTED_MEDIA = re.compile(
    rf"(?:(?:{_MEDIA_WORDS})(?: \w{{1,12}}){{0,2}} (?:{_OMITTED})"
    r"|(?:이미지|동영상|사진|오디오|스티커|문서|미디어)[^.\n]{0,8}(?:생략됨|제외됨|생략)"
    r"|(?:画像|動画|音声|ステッカー|ドキュメント|写真)[^.\n]{0,6}(?:省略されました|省略)"
    r"|(?:图像|图片|影像|圖片|视频|影片|音频|音訊|贴图|貼圖|文件|文檔)[^.\n]{0,4}(?:省略|忽略|略去))"
)
_BRACKETED = re.compile(r"<[^<>\n]{3,160}>")
_ATTACHED = re.compile(
    r"[^\n/\\:*?\"<>|]{1,120}\.(?:jpe?g|png|webp|gif|heic|mp4|mov|3gp|opus|ogg|m4a|aac|mp3|pdf|docx?|"
    r"xlsx?|pptx?|txt|zip|apk|vcf|csv) \([^()\n]{3,40}\)"
)
_LOCATION = re.compile(
    r"(?:(?:live )?location|standort|ubicación|localização|localisation|posizione|locatie)"
    r"[^:\n]{0,20}: https?://\S{1,300}"
)
_EDITED = re.compile(
    r"<[^<>\n]{0,40}(?:edited|bearbeitet|edit[óo]|editad[oa]|modifié|modificato|bewerkt|изменено|"
    r"수정|編集|编辑|編輯|düzenlendi|edytowan)[^<>\n]{0,40}>",
    re.IGNORECASE,
)
_DELETED = frozenset(
    """this message was deleted
you deleted this message
this message was deleted by admin
diese nachricht wurde gelöscht
du hast diese nachricht gelöscht
se eliminó este mensaje
eliminaste este mensaje
este mensaje fue eliminado
este mensaje se eliminó
mensaje eliminado
mensagem apagada
esta mensagem foi apagada
você apagou esta mensagem
apagou esta mensagem
ce message a été supprimé
vous avez supprimé ce message
questo messaggio è stato eliminato
hai eliminato questo messaggio
dit bericht is verwijderd
dit bericht werd verwijderd
je hebt dit bericht verwijderd
данное сообщение удалено
это сообщение удалено
вы удалили данное сообщение
삭제된 메시지입니다
이 메시지는 삭제되었습니다
このメッセージは削除されました
此消息已删除
此訊息已刪除
已删除此消息
bu mesaj silindi
bu mesajı sildiniz
pesan ini telah dihapus
ta wiadomość została usunięta
usunięto tę wiadomość
det här meddelandet raderades
detta meddelande har raderats
denne melding ble slettet
denne besked blev slettet
tämä viesti poistettiin""".splitlines()
)
_CALL = re.compile(
    r"(?:missed (?:group )?(?:voice |video )?call|(?:voice|video|group) call|no answer|"
    r"verpasster (?:sprach|video|gruppen)\w{0,12}anruf|(?:sprach|video)anruf|"
    r"(?:llamada|videollamada|chamada|videochamada) (?:\w{1,10} ){0,2}perdida|"
    r"appel (?:\w{1,10} )?manqué|(?:video)?chiamata (?:\w{1,10} )?persa|"
    r"gemiste (?:spraak|video)?oproep|пропущенный (?:аудио|видео)?звонок|"
    r"부재중 (?:음성|영상)?(?: ?통화|전화)|不在着信|未接(?:语音|視訊|视频|來電)\S{0,6})"
    r"(?:[,.].{0,60})?",
)
_END_TO_END = re.compile(
    r"(?:messages|nachrichten|los mensajes|as mensagens|les messages|i messaggi|berichten|"
    r"сообщения)[^\n]{0,80}(?:end-to-end|ende-zu-ende|extremo|ponta|bout en bout|"
    r"crittografat|шифрован)"
)
_LONGEST = 200
"""Characters of the longest line that a program writes."""


def without_edit_mark(text: str) -> str:
    """Remove the mark at the end of an edited message."""
    before, sign, tail = text.rpartition("<")
    is_mark = sign and len(tail) < _LONGEST and _EDITED.fullmatch(f"<{tail}")
    return before.rstrip(" \u200e") if is_mark else text


def reason_to_drop(text: str) -> str | None:
    """Return why a text is no speech; None if it is."""
    if not text or text == "null":
        return NO_TEXT
    if len(text) > _LONGEST:
        return SYSTEM if _END_TO_END.match(text[:_LONGEST].casefold()) else None
    plain = text.casefold().rstrip(".").strip()
    if plain in _DELETED:
        return DELETED
    if _BRACKETED.fullmatch(text) or _OMITTED_MEDIA.fullmatch(plain) or _LOCATION.fullmatch(plain):
        return MEDIA
    if _ATTACHED.fullmatch(plain):
        return MEDIA
    if _CALL.fullmatch(plain):
        return CALLS
    return SYSTEM if _END_TO_END.match(plain) else None


def is_attachment(line: str) -> bool:
    """Return whether the first line of a message only names a file; a caption may follow."""
    return len(line) <= _LONGEST and _ATTACHED.fullmatch(line.casefold()) is not None
