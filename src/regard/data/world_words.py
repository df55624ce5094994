"""Hold the nouns and adjectives of the demo's world, with what each adjective can be said of.

A noun is written ``english[/plural] = french[/plural] gender``; plurals are left out where the rules of
`world_forms` give them, and ``~`` after the gender marks a mass noun, which has no plural here. An adjective
is written ``english ; french[/feminine] ; kinds it fits ; marks``. The kinds are the whole of the world's
common sense: a sentence is only written when its adjective fits exactly one of its nouns.

Marks of an adjective: ``n`` is not gradable ("too closed" is no English); ``r`` is never "very", only
"really"; ``a`` is ambient, so that "it was too dark" may speak of the weather or of the deed, and the
adjective is only used with "they"; ``h`` is said with `avoir` ("avait faim"); ``i`` is an invariable phrase.
"""

NOUNS: dict[str, str] = {
    "animal": """
        animal = animal m, dog = chien m, cat = chat m, horse = cheval m, cow = vache f, goat = chèvre f,
        ram = bélier m, pig = cochon m, donkey = âne m, wolf/wolves = loup m, fox = renard m, bear = ours m,
        lion = lion m, tiger = tigre m, elephant = éléphant m, giraffe = girafe f, camel = chameau m,
        monkey = singe m, stag = cerf m, doe = biche f, mare = jument f, ewe = brebis f, lioness = lionne f,
        panther = panthère f, gazelle = gazelle f, antelope = antilope f, zebra = zèbre m,
        buffalo/buffaloes = buffle m, bull = taureau m, calf/calves = veau m, pony = poney m, mule = mule f,
        wild boar = sanglier m, otter = loutre f, kangaroo = kangourou m, llama = lama m,
        leopard = léopard m, jackal = chacal/chacals m, ostrich = autruche f, beaver = castor m,
        puppy = chiot m, kitten = chaton m, lamb = agneau m, sow = truie f, heifer = génisse f,
        badger = blaireau m, gorilla = gorille m, goose/geese = oie f, tigress = tigresse f,
        marmot = marmotte f
    """,
    "critter": """
        mouse/mice = souris f, rat = rat m, rabbit = lapin m, squirrel = écureuil m, frog = grenouille f,
        toad = crapaud m, snake = serpent m, turtle = tortue f, lizard = lézard m, hedgehog = hérisson m,
        hamster = hamster m, ant = fourmi f, spider = araignée f, snail = escargot m, beetle = scarabée m,
        caterpillar = chenille f, bee = abeille f, wasp = guêpe f, butterfly = papillon m, hen = poule f,
        rooster = coq m, duck = canard m, turkey = dinde f, owl = hibou m, bird = oiseau m,
        crow = corbeau m, pigeon = pigeon m, seagull = mouette f, magpie = pie f, stork = cigogne f,
        heron = héron m, sparrow = moineau m, dove = colombe f, weasel = belette f, mole = taupe f,
        ladybug = coccinelle f, grasshopper = sauterelle f, salamander = salamandre f, ferret = furet m,
        crab = crabe m
    """,
    "people": """
        child/children = enfant m, woman/women = femme f, man/men = homme m, girl = fille f, boy = garçon m,
        teacher = professeur m, nurse = infirmière f, farmer = fermier m, tourist = touriste m,
        student = étudiant m, singer = chanteur m, ballerina = ballerine f, worker = ouvrier m,
        engineer = ingénieur m, doctor = médecin m, neighbor = voisin m, gardener = jardinier m,
        baker = boulanger m, waitress = serveuse f, actress = actrice f, queen = reine f,
        princess = princesse f, king = roi m, soldier = soldat m, sailor = marin m, painter = peintre m,
        pilot = pilote m, thief/thieves = voleur m, lady = dame f, witch = sorcière f, nun = religieuse f,
        saleswoman/saleswomen = vendeuse f, hero/heroes = héros m, heroine = héroïne f
    """,
    "vehicle": """
        car = voiture f, truck = camion m, bus = bus m, motorcycle = moto f, taxi = taxi m,
        van = camionnette f, ambulance = ambulance f, tow truck = dépanneuse f, coach = autocar m,
        scooter = scooter m, limousine = limousine f, jeep = jeep f
    """,
    "cart": "bicycle = bicyclette f, carriage = calèche f, cart = charrette f, wagon = chariot m",
    "hauler": """
        crane = grue f, robot = robot m, tractor = tracteur m, bulldozer = bulldozer m,
        excavator = pelleteuse f, machine = machine f, loader = chargeuse f
    """,
    "rail": "train = train m, tram = tramway m, locomotive = locomotive f",
    "boat": """
        boat = bateau m, ship = navire m, barge = péniche f, sailboat = voilier m, raft = radeau m,
        rowboat = barque f, canoe = canoë m, gondola = gondole f, frigate = frégate f, yacht = yacht m
    """,
    "machine": """
        computer = ordinateur m, printer = imprimante f, radio = radio f, television = télévision f,
        telephone = téléphone m, camera = caméra f, engine = moteur m, refrigerator = réfrigérateur m,
        oven = four m, fan = ventilateur m, vacuum cleaner = aspirateur m, calculator = calculatrice f,
        generator = générateur m, pump = pompe f, radiator = radiateur m, lawnmower = tondeuse f,
        coffee maker = cafetière f, chainsaw = tronçonneuse f, tablet = tablette f
    """,
    "road": """
        street = rue f, road = route f, avenue = avenue f, path = sentier m, trail = piste f,
        alley = ruelle f, boulevard = boulevard m, highway = autoroute f, lane = chemin m,
        driveway = allée f
    """,
    "passage": """
        bridge = pont m, footbridge = passerelle f, viaduct = viaduc m,
        drawbridge = pont-levis/ponts-levis m
    """,
    "tunnel": "tunnel = tunnel m, garage = garage m, mine = mine f, depot = dépôt m",
    "square": """
        square = place f, courtyard = cour f, intersection = intersection f, parking lot = parking m,
        sidewalk = trottoir m, terrace = terrasse f, roundabout = rond-point/ronds-points m,
        esplanade = esplanade f
    """,
    "water": """
        river = rivière f, stream = ruisseau m, lake = lac m, canal = canal m, pond = étang m,
        swamp = marais m
    """,
    "sea": "sea = mer f, lagoon = lagune f, ocean = océan m, bay = baie f, strait = détroit m",
    "land": """
        field = champ m, forest = forêt f, desert = désert m, valley = vallée f, meadow = prairie f,
        garden = jardin m, park = parc m, beach = plage f, plain = plaine f, orchard = verger m,
        clearing = clairière f, vineyard = vignoble m, jungle = jungle f, island = île f
    """,
    "slope": """
        hill = colline f, mountain = montagne f, cliff = falaise f, dune = dune f,
        volcano/volcanoes = volcan m, rock = rocher m, glacier = glacier m, pyramid = pyramide f,
        ridge = crête f
    """,
    "barrier": """
        wall = mur m, fence = clôture f, gate = portail/portails m, barrier = barrière f, hedge = haie f,
        obstacle = obstacle m, railing = balustrade f
    """,
    "gap": "ditch = fossé m, puddle = flaque f, trench = tranchée f, hole = trou m, pit = fosse f",
    "building": """
        house = maison f, school = école f, church = église f, station = gare f, hospital = hôpital m,
        hotel = hôtel m, castle = château m, museum = musée m, store = magasin m, shop = boutique f,
        library = bibliothèque f, factory = usine f, farm = ferme f, barn = grange f, stable = écurie f,
        tower = tour f, prison = prison f, restaurant = restaurant m, theater = théâtre m,
        bakery = boulangerie f, pharmacy = pharmacie f, temple = temple m, hut = cabane f,
        chapel = chapelle f, palace = palais m, mill = moulin m, lighthouse = phare m, airport = aéroport m,
        university = université f, warehouse = entrepôt m, hangar = hangar m, inn = auberge f
    """,
    "room": """
        kitchen = cuisine f, bedroom = chambre f, attic = grenier m, cellar = cave f, cave = grotte f,
        office = bureau m, living room = salon m, tent = tente f, workshop = atelier m,
        laboratory = laboratoire m, greenhouse = serre f, corridor = couloir m, gallery = galerie f
    """,
    "object": """
        box = boîte f, crate = caisse f, suitcase = valise f, bag = sac m, basket = panier m,
        lamp = lampe f, mirror = miroir m, vase = vase m, bottle = bouteille f, cup = tasse f,
        plate = assiette f, bucket = seau m, hammer = marteau m, statue = statue f, clock = horloge f,
        guitar = guitare f, drum = tambour m, violin = violon m, trumpet = trompette f,
        painting = tableau m, candle = bougie f, umbrella = parapluie m, barrel = tonneau m, ax = hache f,
        harp = harpe f, ball = ballon m, doll = poupée f, toy = jouet m, crown = couronne f,
        jewel = bijou m, trophy = trophée m, chest = coffre m, tool = outil m, shovel = pelle f,
        teapot = théière f, package = colis m, medal = médaille f
    """,
    "furniture": """
        table = table f, chair = chaise f, armchair = fauteuil m, sofa = canapé m, bed = lit m,
        wardrobe = armoire f, shelf/shelves = étagère f, piano = piano m, bench = banc m,
        stool = tabouret m, dresser = commode f, cupboard = placard m, mattress = matelas m,
        cradle = berceau m
    """,
    "garment": """
        coat = manteau m, shirt = chemise f, dress = robe f, hat = chapeau m, skirt = jupe f,
        jacket = veste f, scarf/scarves = écharpe f, sweater = pull m, glove = gant m, shoe = chaussure f,
        boot = botte f, sock = chaussette f, belt = ceinture f, tie = cravate f, suit = costume m,
        cap = casquette f, raincoat = imperméable m, apron = tablier m, vest = gilet m, sandal = sandale f
    """,
    "dish": """
        soup = soupe f, cake = gâteau m, sandwich = sandwich m, omelet = omelette f, tart = tarte f,
        pizza = pizza f, cookie = biscuit m, pancake = crêpe f, sauce = sauce f, stew = ragoût m,
        meal = repas m, dessert = dessert m, sausage = saucisse f, pie = tourte f
    """,
    "produce": """
        meat = viande f~, potato/potatoes = pomme de terre/pommes de terre f, mushroom = champignon m,
        onion = oignon m, carrot = carotte f, bean = haricot m, egg = œuf m, tomato/tomatoes = tomate f,
        steak = steak m, cabbage = chou m, turnip = navet m, beet = betterave f, cucumber = concombre m,
        pumpkin = citrouille f, lettuce = laitue f, ham = jambon m~
    """,
    "fruit": """
        apple = pomme f, pear = poire f, orange = orange f, lemon = citron m, strawberry = fraise f,
        banana = banane f, cherry = cerise f, peach/peaches = pêche f, melon = melon m, apricot = abricot m,
        raspberry = framboise f, plum = prune f, fig = figue f, pineapple = ananas m, mango = mangue f,
        watermelon = pastèque f, grapefruit = pamplemousse m, kiwi = kiwi m
    """,
    "text": """
        book = livre m, letter = lettre f, newspaper = journal m, poem = poème m, novel = roman m,
        story = histoire f, report = rapport m, article = article m, message = message m,
        magazine = revue f, contract = contrat m, lesson = leçon f, recipe = recette f,
        document = document m
    """,
    "flower": """
        flower = fleur f, rose = rose f, tulip = tulipe f, daisy = marguerite f, sunflower = tournesol m,
        orchid = orchidée f, violet = violette f, daffodil = jonquille f, poppy = coquelicot m,
        carnation = œillet m
    """,
    "shrub": """
        bush = buisson m, thistle = chardon m, cactus = cactus m, nettle = ortie f, bramble = ronce f,
        rosebush = rosier m
    """,
    "tree": """
        tree = arbre m, oak = chêne m, pine = pin m, fir = sapin m, willow = saule m, palm tree = palmier m,
        poplar = peuplier m
    """,
}

# Sets of kinds named by one word in the table of adjectives.
KIND_SETS: dict[str, str] = {
    "living": "animal critter people",
    "beasts": "animal critter",
    "wheels": "vehicle cart hauler rail",
    "devices": "vehicle cart hauler rail boat machine",
    "ways": "road passage square tunnel",
    "routes": "road passage square",
    "places": "building room tunnel",
    "things": "object furniture garment text machine",
    "foods": "dish produce fruit",
    "plants": "flower shrub tree",
    "sights": "building land slope water sea square road passage tunnel barrier gap room",
}

# Adjectives said of a noun in a predicate: "it was too …".
PREDICATES = """
    tired; fatigué; living
    exhausted; épuisé; living
    hungry; faim; living; h
    thirsty; soif; living; h
    sleepy; sommeil; living; h
    afraid; peur; living; h
    frightened; effrayé; living
    sick; malade; living plants
    injured; blessé; living; n
    lazy; paresseux; living
    curious; curieux; living
    nervous; nerveux; living
    shy; timide; living
    brave; courageux; living
    clumsy; maladroit; living
    impatient; impatient; living
    patient; patient; living
    furious; furieux; living; r
    happy; heureux; living
    sad; triste; living text
    proud; fier/fière; living
    worried; inquiet/inquiète; living
    jealous; jaloux/jalouse; living
    cautious; prudent; living
    stubborn; têtu; living
    distracted; distrait; living
    suspicious; méfiant; living
    excited; excité; living
    greedy; gourmand; living
    playful; joueur/joueuse; living
    starving; affamé; living; n
    young; jeune; living tree
    agile; agile; living
    bold; audacieux; living
    strong; fort; living hauler machine vehicle cart rail boat
    rich; riche; people
    slow; lent; living vehicle cart hauler rail boat water sea
    fast; rapide; living vehicle cart hauler rail boat water sea
    noisy; bruyant; beasts devices ways places; a
    wild; sauvage; beasts land plants
    wide; large; ways water sea gap vehicle cart rail hauler boat furniture garment barrier
    narrow; étroit; ways gap room garment furniture
    long; long/longue; ways vehicle cart rail boat barrier text garment furniture slope water sea
    short; court; ways text garment
    steep; raide; road slope
    straight; droit; road passage tunnel barrier
    winding; sinueux; road passage tunnel
    muddy; boueux; road square land gap water sea garment
    icy; verglacé; ways slope; a
    slippery; glissant; ways slope barrier room; a
    stony; caillouteux; road land
    bumpy; cahoteux; road
    dusty; poussiéreux; road square places furniture object text machine
    flooded; inondé; ways land places; n
    closed; fermé; ways places; n
    blocked; bloqué; ways places devices; n
    open; ouvert; ways places; n
    deep; profond; water sea gap room
    polluted; pollué; water sea land
    frozen; gelé; water gap produce fruit dish; n
    rough; agité; water sea
    vast; vaste; water sea land square places
    dangerous; dangereux; devices ways water sea land slope barrier gap places; a
    crowded; bondé; ways places vehicle cart rail
    high; haut; slope barrier building tree hauler
    low; bas/basse; barrier room furniture
    dry; sec/sèche; ways land plants produce dish gap; a
    quiet; calme; living ways land places water sea; a
    shady; ombragé; ways land; a
    sunny; ensoleillé; ways land places; a
    dark; sombre; ways land places garment; a
    damp; humide; land places garment; a
    haunted; hanté; places land; n
    abandoned; abandonné; beasts devices places road passage tunnel land object furniture; n
    empty; vide; ways places vehicle cart rail boat object; n
    distant; éloigné; sights
    famous; célèbre; people places text sights
    magnificent; magnifique; beasts people sights flower tree garment object furniture wheels boat; r
    modern; moderne; devices places furniture
    bright; lumineux; room building
    comfortable; confortable; people beasts furniture garment vehicle cart rail places
    uncomfortable; inconfortable; furniture garment vehicle
    heavy; lourd; object furniture vehicle cart rail boat machine
    light; léger/légère; object furniture garment vehicle cart rail boat machine dish
    sturdy; solide; object furniture vehicle cart boat barrier
    bulky; encombrant; object furniture machine
    fragile; fragile; object furniture plants boat
    expensive; cher/chère; object furniture garment machine vehicle cart rail boat hauler foods
    broken; cassé; object furniture machine; n
    rusty; rouillé; vehicle cart rail hauler machine
    useful; utile; things vehicle cart rail hauler boat
    useless; inutile; things vehicle cart rail hauler boat; r
    ugly; laid; living sights things devices plants
    precious; précieux; object furniture text
    rare; rare; object furniture text plants living
    shiny; brillant; object vehicle cart rail machine
    colorful; coloré; object garment flower furniture
    sticky; collant; object dish furniture
    soft; doux/douce; garment furniture fruit
    powerful; puissant; vehicle hauler rail machine
    reliable; fiable; people machine vehicle rail hauler
    complicated; compliqué; machine text; a
    out of order; en panne; machine vehicle rail hauler; ni
    overloaded; surchargé; vehicle cart rail boat; n
    salty; salé; dish produce water sea
    sweet; sucré; dish fruit
    bitter; amer/amère; produce fruit
    spicy; épicé; dish
    greasy; gras/grasse; dish
    scalding; brûlant; dish; n
    burnt; brûlé; dish building; n
    tasteless; fade; dish produce fruit
    delicious; délicieux; foods; r
    appetizing; appétissant; foods
    rotten; pourri; produce fruit; n
    raw; cru; produce; n
    hard; dur; produce fruit furniture
    fresh; frais/fraîche; produce fruit
    ripe; mûr; fruit
    sour; acide; fruit
    juicy; juteux; fruit
    tight; serré; garment
    torn; déchiré; garment text; n
    stained; taché; garment text; n
    worn; usé; garment furniture
    old-fashioned; démodé; garment furniture
    elegant; élégant; garment people furniture
    wrinkled; froissé; garment
    boring; ennuyeux; text
    interesting; intéressant; text building people
    confusing; confus; text
    funny; drôle; text living
    unreadable; illisible; text; n
    incomplete; incomplet/incomplète; text; n
    mysterious; mystérieux; text building land people beasts
    secret; secret/secrète; text passage tunnel; n
    withered; fané; flower; n
    fragrant; parfumé; flower
    thorny; épineux; shrub"""

# Adjectives beside a noun: english ; french[/feminine[/masculine before vowel]] ; kinds ; b = before it.
ATTRIBUTES = """
    small; petit; beasts devices sights object furniture plants fruit; b
    big; gros/grosse; beasts object fruit shrub machine; b
    large; grand; sights devices furniture tree; b
    old; vieux/vieille/vieil; beasts people devices sights object furniture garment text tree; b
    new; nouveau/nouvelle/nouvel; devices building object furniture garment text; b
    beautiful; beau/belle/bel; beasts building land object garment flower tree road square; b
    pretty; joli; garment object flower road square building; b
    black; noir; beasts vehicle cart boat object furniture garment
    white; blanc/blanche; beasts vehicle boat furniture garment building flower
    gray; gris; beasts vehicle hauler garment building
    brown; brun; beasts furniture garment
    red; rouge; vehicle cart hauler boat object garment flower
    green; vert; vehicle cart hauler boat object garment furniture
    blue; bleu; vehicle cart hauler boat object garment furniture
    yellow; jaune; vehicle hauler boat object garment flower
"""

# An attribute and a predicate that contradict each other are never said of one noun.
CLASHES: dict[str, str] = {
    "small": "heavy bulky vast high wide long deep",
    "big": "light",
    "large": "narrow low light tight short vast",
    "old": "modern young fresh",
    "new": "old-fashioned worn rusty abandoned haunted torn broken ugly famous",
    "beautiful": "ugly magnificent withered torn stained rusty muddy",
    "pretty": "ugly magnificent withered torn stained muddy",
}

# French words whose first h (or y, or o) blocks elision; an s or x at the end is ignored.
ASPIRATED = frozenset(
    ("hérisson", "hibou", "haie", "harpe", "hache", "haricot", "hamster", "héron", "hangar", "héro",
     "haut", "haute", "hanté", "hantée", "yacht", "onze", "oui")
)  # fmt: skip

# English words whose first letter misleads about "a" and "an".
CONSONANT_ONSETS = ("university", "useful", "useless", "unicorn", "uniform", "ewe")
VOWEL_ONSETS = ("hour", "honest", "heir")
