# همهٔ جمله‌های صفحه. کلیدها همان کلیدهای page.en.ftl هستند؛ یک آزمون برابری را می‌سنجد.
# کوتاه، بی‌سرزنش، با «شما»؛ نخست آنچه هست، بعد معنایش برای شما، بعد کاری که می‌توانید بکنید.

## Top
app-name = ایوان
status-live = زنده
status-scheduled = در پیش
status-none = آغاز نشده
status-ended = پایان یافت
duration-moment = کمتر از ۱ دقیقه
duration-minutes = { $minutes } دقیقه
duration-hours = { $hours } ساعت و { $minutes } دقیقه
duration-short = { $hours } س { $minutes } د
from-to = { $day }، { $start } تا { $end }
listening = { $count } شنونده
more = بیشتر: صدا، زبان، نما
connection-dot-connecting = در حال وصل شدن
connection-dot-lost = وصل نیست

## Stage
stage-label = صحنه
hall-quiet = ایوان آرام است. میزبان به‌زودی می‌آید.
hall-not-begun = نشست هنوز آغاز نشده است. این صفحه خودش آن را باز می‌کند.
role-host = میزبان
role-moderator = گرداننده
role-speaker = سخنران
role-listener = شنونده
you = شما
mic-is-on = میکروفون روشن
mic-is-off = میکروفون خاموش
mic-is-muted = صدا بسته از سوی گرداننده
is-talking = در حال صحبت
coming-up = در راه صحنه
not-here = فعلاً اینجا نیست
audience = شنوندگان
hands-are-up = دست بالا
audience-tile = { $n ->
    [1] هر کاشی یک شنونده است
   *[other] هر کاشی { $n } شنونده است
  }
audience-empty = هنوز شنونده‌ای نیست
talks = صحبت می‌کند
and-more = { $count }+

## Dock
controls = دکمه‌ها
leave = خروج
people = حاضران
hands = دست‌ها
desk = میز
sound = صدا
device = دستگاه
raise-hand = دست بالا
sending = در راه است…
take-back = برای پس گرفتن بزنید
in-line = { $place ->
    [1] نفر اول صف
    [2] نفر دوم صف
    [3] نفر سوم صف
    [4] نفر چهارم صف
    [5] نفر پنجم صف
    [6] نفر ششم صف
    [7] نفر هفتم صف
    [8] نفر هشتم صف
    [9] نفر نهم صف
    [10] نفر دهم صف
   *[other] نفر { $place } صف
  }
lower-hand = دست پایین
come-up = می‌آیم
not-now = الان نه
hands-closed = دست‌ها بسته است
hands-closed-why = فعلاً دست نمی‌گیریم
guest-listens = گوش می‌دهید
guest-how = چگونه صحبت کنم؟
mic-on = روشن
mic-off = خاموش
mic-asking = اجازهٔ مرورگر
mic-opening = در حال باز شدن…
mic-silent = بی‌صدا
mic-silent-hint = میکروفون را ببینید
mic-muted = صدا بسته
mic-muted-hint = از سوی گرداننده

## Sheets
close = بستن
hand-title = دستتان را بالا ببرید
hand-note-label = چه می‌خواهید بگویید؟ (اختیاری؛ گردانندگان می‌بینند)
hand-note-hint = غزلی از حافظ، دو دقیقه
hand-note-left = { $left } نویسه مانده
invited-title = { $name } شما را به صحنه دعوت کرد
invited-text = میکروفونتان خاموش می‌ماند تا خودتان روشنش کنید.
door-title = خوش آمدید. { $title } برپاست.
door-text = { $count ->
    [0] شما فقط شنونده‌اید و میکروفونی خواسته نمی‌شود.
   *[other] { $count } نفر گوش می‌دهند. شما فقط شنونده‌اید و میکروفونی خواسته نمی‌شود.
  }
door-text-stage = روی صحنه‌اید. میکروفونتان خاموش می‌ماند تا خودتان روشنش کنید.
door-listen = بفرمایید تو
not-e2ee = صدا در سرور آمیخته می‌شود، پس رمزنگاری سرتاسری ندارد.
guest-title = اینجا مهمانید
guest-text = همه چیز را می‌شنوید. برای دست بالا بردن، در برنامهٔ ماتریکس خود به اتاق بپیوندید و این را بنویسید؛ ربات پیوند خودتان را می‌فرستد.
copy-command = رونوشت دستور
copied = رونوشت شد

## People
people-title = حاضران
people-search = جست‌وجوی نام
people-on-stage = روی صحنه
people-listening = شنوندگان
people-none = کسی با این نام نیست
people-not-shown = و { $count } شنوندهٔ دیگر
hand-is-up = دست بالا
tab-people = حاضران
tab-hands = دست‌ها

## Hands
hands-title = دست‌های بالا
hands-none = دستی بالا نیست
hands-none-text = دست‌ها از هر برنامه‌ای که بیایند اینجا دیده می‌شوند، با یادداشتشان.
bring-up = بیاید روی صحنه
later = بعداً
bring-up-name = { $name } بیاید روی صحنه
not-now-name = بعداً: { $name }
no-note = بی‌یادداشت
waiting-for = { $time } در صف

## One person
person-invite = دعوت به صحنه
person-invite-hint = آمدن با خودش است
person-mute = بستن صدا
person-mute-hint = خودش نمی‌تواند باز کند تا شما اجازه دهید
person-unmute = اجازهٔ دوبارهٔ میکروفون
person-unmute-hint = روشن کردنش با خودش است
person-to-audience = بردن میان شنوندگان
person-leave-out = برای من نه
person-leave-out-hint = تنها شما دیگر صدایش را نمی‌شنوید؛ کسی خبردار نمی‌شود
person-hear-again = دوباره شنیدن صدایش
is-left-out = صدایش را نمی‌شنوید
person-make-moderator = گرداننده شود
person-kick = بیرون بردن از اتاق
person-kick-hint = اگر اتاق اجازه دهد می‌تواند برگردد
person-nothing = دیگران از { $name } همین را می‌بینند.
confirm-kick = { $name } از اتاق بیرون برود؟
confirm-kick-text = صدا همان دم برایش بسته می‌شود و از اتاق ماتریکس بیرون می‌رود. دیگران می‌بینند چه کسی او را بیرون برد.
confirm-end = این نشست پایان یابد؟
confirm-end-text = { $count ->
    [0] نشست برای همه بسته می‌شود.
   *[other] ارتباط { $count } شنونده و همهٔ سخنرانان قطع می‌شود.
  } دوباره باز نمی‌شود.
end-stage = پایان نشست
end = پایان نشست
cancel = انصراف
topic-title = موضوع نشست
topic-label = اکنون دربارهٔ چیست؟
topic-save = ثبت

## Settings
settings-title = صدا و صفحه
desk-title = میز گرداننده
volume = بلندی صدا
stage-sound = صدای نشست
sound-voice = گفتار
sound-music = موسیقی
sound-low = کم‌حجم
stage-sound-music = صدای این نشست استریو و برای موسیقی است.
stage-sound-low = صدای این نشست کم‌حجم است.
microphone = میکروفون
microphone-default = پیش‌فرض دستگاه
microphone-hint = نام‌ها پس از نخستین استفاده می‌آیند.
language = زبان
appearance = نما
theme-light = روز
theme-dark = شب
sounds = صداهای کوچک
sounds-hint = وقتی دعوت می‌شوید، و وقتی میکروفونتان باز یا بسته می‌شود
single-keys = کلیدهای تکی
single-keys-hint = M میکروفون، H دست
signed-in-as = با نام { $user } اینجایید
open-room = باز کردن اتاق

## Notes
messages = پیام‌ها
connecting = در حال وصل شدن…
connecting-text = معمولاً کمتر از دو ثانیه.
lost = ارتباط قطع شد؛ دوباره وصل می‌شویم
lost-text = جا و دستِ بالای شما محفوظ است.
lost-text-mic = جای شما محفوظ است. میکروفون همان‌طور که بود برمی‌گردد.
blocked = این شبکه راه صدای زنده را بسته است
blocked-text = همچنان صحنه را می‌بینید و می‌توانید دست بالا ببرید. برای شنیدن، شبکهٔ دیگر یا اینترنت همراه را امتحان کنید.
copy-details = رونوشت جزئیات برای مدیر
back = دوباره وصل شدید
back-text = { $seconds } ثانیه را نشنیدید.
back-mic-off = میکروفونتان خاموش است.
back-mic-on = میکروفونتان مثل پیش روشن است.
full = سرور فعلاً جا ندارد
full-text = همین که جا باز شود خودبه‌خود وارد می‌شوید.
to-stage = روی صحنه‌اید
to-stage-text = هر وقت آماده بودید میکروفون را روشن کنید.
to-audience = دوباره میان شنوندگانید
to-audience-text = سپاس از صحبتتان.
muted = گرداننده صدای شما را بست
muted-by = { $name } صدای شما را بست
muted-text = دیگران اکنون صدای شما را نمی‌شنوند. وقتی باز شود، روشن کردن میکروفون فقط به دست خودتان است.
ask-to-speak = اجازه می‌خواهم
unmuted = دوباره می‌توانید صحبت کنید
unmuted-text = میکروفونتان هنوز خاموش است؛ هر وقت آماده بودید روشنش کنید.
hand-not-now = کمی بعد
hand-not-now-text = دستتان به آخر صف رفت و همچنان بالاست.
invite-declined = دعوت پذیرفته نشد
invite-declined-by = { $name } الان نمی‌آید
invite-declined-text = همچنان میان شنوندگان است.
confirm = به پیام { $code } ربات با 👍 پاسخ دهید
confirm-text = در گفت‌وگوی خصوصی شماست: ابزارک از دیگران می‌شنود که شما کیستید، پس یک بار خودتان بگویید که { $code } روی صفحهٔ شماست. بعد دوباره بزنید.
confirmed = تأیید شد
confirmed-text = از این پس می‌توانید اینجا نشست را بگردانید. دوباره بزنید.
confirm-failed = ربات نتوانست برایتان بنویسد
confirm-failed-text = پیش از گرداندن نشست باید یک بار در گفت‌وگوی خصوصی از شما بپرسد. پیام‌هایش را مجاز کنید و دوباره بزنید؛ یا پیوند شخصی‌تان را باز کنید.
not-written = در اتاق ثبت نشد
not-written-text = چیزی تغییر نکرد. ربات دلیلش را برایتان نوشته است.
cut-not-written = هنوز در اتاق ثبت نشد
cut-not-written-text = با این همه، صدا در این نشست بسته می‌ماند. ربات دلیلش را برایتان نوشته است.
silent = میکروفون روشن است، ولی صدایی نمی‌آید
silent-text = کسی صدای شما را نمی‌شنود. از روی هدست بسته نیست؟ دستگاه دیگری انتخاب نشده؟
choose-microphone = انتخاب میکروفون
trouble-denied = مرورگر اجازهٔ میکروفون نداده است
trouble-denied-text = قفل کنار نشانی را بزنید، میکروفون را مجاز کنید و دوباره بکوشید.
trouble-missing = میکروفونی پیدا نشد
trouble-missing-text = یکی وصل کنید یا دیگری را برگزینید و دوباره بکوشید.
trouble-busy = میکروفون در دست برنامهٔ دیگری است
trouble-busy-text = آن برنامه را ببندید و دوباره بکوشید.
trouble-gone = میکروفون جدا شد
trouble-gone-text = دیگران صدای شما را نمی‌شنوند. آن را وصل کنید یا دیگری را برگزینید و دوباره روشن کنید.
trouble-insecure = این صفحه با ارتباط امن باز نشده است
trouble-insecure-text = مرورگرها میکروفون را فقط به صفحه‌های https می‌دهند. از مدیر بخواهید صفحه را با https بدهد.
try-again = دوباره
toast-no-answer = سرور پاسخ نداد؛ چیزی تغییر نکرد
toast-muted = صدای { $name } بسته است
toast-unmuted = { $name } دوباره می‌تواند صحبت کند
toast-left-out = دیگر صدای { $name } را نمی‌شنوید
toast-to-audience = { $name } میان شنوندگان است
toast-invited = { $name } دعوت شد
toast-brought-up = { $name } روی صحنه می‌آید
toast-not-now = { $name } به آخر صف رفت
toast-kicked = { $name } بیرون رفت
toast-moderator = { $name } گرداننده شد
undo = برگردان
invite-back = دعوت دوباره

## Spoken by screen readers
say-hand-up = دستتان بالاست. { $where }
say-role = اکنون { $role } هستید

## The farewell
thanks = سپاس که آمدید
lasted = مدت
most-at-once = بیشترین شنونده
were-on-stage = روی صحنه بودند
closed-ended = نشست پایان یافت
closed-ended-text = سپاس که آمدید.
closed-left = بیرون رفتید
closed-left-text = نشست ادامه دارد و هر وقت خواستید می‌توانید برگردید.
closed-removed = از این نشست بیرون برده شدید
closed-removed-text = از سوی گرداننده. در اتاق بیشتر می‌خوانید.
closed-left_room = شما در این اتاق نیستید
closed-left_room-text = در برنامهٔ ماتریکس خود به اتاق بپیوندید و برگردید.
closed-elsewhere = در صفحهٔ دیگری گوش می‌دهید
closed-elsewhere-text = این صفحه ساکت است تا همه چیز را دو بار نشنوید.
closed-expired = این پیوند دیگر کار نمی‌کند
closed-expired-text = پیوند شخصی مدت معینی کار می‌کند، و فقط تا وقتی نشستش باز است. برای پیوند تازه در اتاق بنویسید:
closed-over = این نشست تمام شده، یا نشستی اینجا نیست
closed-over-text = در اتاق بپرسید که آیا نشست دیگری باز است.
closed-altered = این پیوند کامل نیست
closed-altered-text = بخشی از آن در راه افتاده است. از پیام ربات بازش کنید، یا برای پیوند تازه در اتاق بنویسید:
closed-revoked = این پیوند باطل شده است
closed-revoked-text = برای پیوند تازه در اتاق بنویسید:
closed-devices = این پیوند روی سه دستگاه باز است
closed-devices-text = برای پیوند تازه در اتاق بنویسید؛ دستگاه‌های پیشین وصل می‌مانند:
closed-membership = شما در این اتاق نیستید
closed-membership-text = در برنامهٔ ماتریکس خود به اتاق بپیوندید و برای پیوند تازه آنجا بنویسید:
closed-unknown = این پیوند باز نمی‌شود
closed-unknown-text = شاید از آنِ نشست دیگری باشد. برای پیوند تازه در اتاق بنویسید:
closed-identity = برنامهٔ شما نگفت کیستید
closed-identity-text = برای ورود، وقتی برنامه می‌پرسد این ابزارک بداند شما کیستید، بپذیرید.
closed-client = جای این صفحه درون برنامهٔ ماتریکس است
closed-client-text = ابزارک نشست را در اتاق باز کنید، یا برای پیوند شخصی آنجا بنویسید:
closed-guests = این نشست پیوند خودتان را می‌خواهد
closed-guests-text = در برنامهٔ ماتریکس خود به اتاق بپیوندید و این را بنویسید؛ ربات پیوند را می‌فرستد:
come-in-again = دوباره بفرمایید
listen-here = همین‌جا گوش می‌دهم
