"""Hold the verbs of the demo's world, and who does what where no reason is told.

A verb is written ``base [past [-ing form]] = infinitive [past participle, third person singular and plural of
the present, stem of the future] marks``; what the regular rules of `world_forms` give is left out. A particle
follows the English verb after ``+`` and a French preposition the French verb after ``+``; the mark ``ê`` says
that the past is made with `être`.
"""

VERBS = """
    cross = traverser
    follow = suivre suivi suit suivent suivr
    leave left = quitter
    avoid = éviter
    enter = entrer + dans ê
    explore = explorer
    visit = visiter
    reach = atteindre atteint atteint atteignent atteindr
    climb = escalader
    jump + over = sauter
    push = pousser
    pull = tirer
    move = déplacer
    drag dragged dragging = traîner
    lift = soulever soulevé soulève soulèvent soulèver
    transport = transporter
    carry = porter
    steal stole = voler
    hide hid = cacher
    knock + over = renverser
    take took + away = emporter
    touch = toucher
    destroy = détruire détruit détruit détruisent détruir
    eat ate = manger
    taste = goûter
    finish = finir fini finit finissent finir
    swallow = avaler
    refuse = refuser
    smell = sentir senti sent sentent sentir
    prepare = préparer
    wear wore = porter
    buy bought = acheter acheté achète achètent achèter
    choose chose = choisir choisi choisit choisissent choisir
    try + on = essayer essayé essaie essaient essaier
    keep kept = garder
    sell sold = vendre vendu vend vendent vendr
    read read = lire lu lit lisent lir
    translate = traduire traduit traduit traduisent traduir
    understand understood = comprendre compris comprend comprennent comprendr
    copy = copier
    repair = réparer
    use = utiliser
    throw threw + away = jeter jeté jette jettent jetter
    wash = laver
    clean = nettoyer nettoyé nettoie nettoient nettoier
    cut cut cutting = couper
    pick = cueillir cueilli cueille cueillent cueiller
    water = arroser
    paint = peindre peint peint peignent peindr
    photograph = photographier
    draw drew = dessiner
    chase = poursuivre poursuivi poursuit poursuivent poursuivr
    watch = regarder
    look + for = chercher
    find found = trouver
    protect = protéger protégé protège protègent protéger
    block = bloquer
    go went + to = aller allé va vont ir + à ê
    arrive + at = arriver + à ê
    return + to = retourner + à ê
    come came + out of = sortir sorti sort sortent sortir + de ê
    fall fell + into = tomber + dans ê
    stay + in = rester + dans ê
    sleep slept + in = dormir dormi dort dorment dormir + dans
    live + in = habiter + dans
"""

# Each line: kinds of subject ; verbs ; kinds of object.
DEEDS = """
    animal people ; chase, protect, watch, look for ; animal critter
    critter ; chase, watch ; critter
    people ; watch, find, look for, draw, photograph ; boat vehicle cart people
    hauler vehicle ; block ; road passage
    animal critter people ; find, look for ; object
    people ; cut, water, protect ; tree shrub
"""

JOURNEYS = """
    animal critter people ; come out of, stay in, sleep in ; building room
    people ; go to, return to, live in ; building
    people ; go to, return to ; square room
    vehicle cart ; go to, arrive at, return to ; building square
    people animal ; arrive at ; building
    animal critter vehicle ; fall into ; gap water
    rail ; arrive at ; building
    vehicle cart ; come out of ; tunnel
"""
